import type { Node } from "./parse-sql.ts";

/** What one statement's tree names anywhere in it. */
export interface TreeFindings {
  readonly namesOurSchema: boolean;
  /** a temporary table, a session setting or a session-level lock */
  readonly touchesSession: boolean;
}

/**
 * Looks through a whole parse tree for names in this program's own schema and for what stays in the session.
 *
 * Guards against accidents, not against a migration that hides what it does (`EXECUTE format(…)`).
 */
export function searchTree(root: Node): TreeFindings {
  const search: Search = {
    namesOurSchema: "VariableSetStmt" in root && setsOurs(root.VariableSetStmt),
    touchesSession: false,
    isAboutSchemas: isAboutSchemas(root),
    hasCode: "DoStmt" in root || "CreateFunctionStmt" in root,
  };
  visit(root, "", search);
  return search;
}

interface Search {
  namesOurSchema: boolean;
  touchesSession: boolean;
  /** a single name in it is a schema's */
  readonly isAboutSchemas: boolean;
  /** a text in it is code that will run */
  readonly hasCode: boolean;
}

const OUR_SCHEMA = "lockkeeper";

/** `lockkeeper.history` in the text of a function or `DO` block; a full stop at the end of a sentence is none. */
const OUR_SCHEMA_IN_CODE = /(?<![\w$."])"?lockkeeper"?\."?[a-z_]/i;

/** Functions whose effect outlives the transaction. */
const SESSION_FUNCTIONS = /^(set_config|pg_(try_)?advisory_(un)?lock(_shared|_all)?|dblink_.*)$/;

function visit(value: unknown, key: string, search: Search): void {
  if (Array.isArray(value)) {
    if (value.length > 1 && isQualifiedByUs(value, key)) search.namesOurSchema = true;
    for (const item of value) visit(item, key, search);
    return;
  }
  if (typeof value === "string") return visitText(value, key, search);
  if (typeof value !== "object" || value === null) return;
  for (const [field, inner] of Object.entries(value)) {
    if (field === "FuncCall") visitCall(inner, search);
    visit(inner, field, search);
  }
}

function visitText(value: string, key: string, search: Search): void {
  switch (key) {
    case "schemaname":
    case "newschema":
      if (value === OUR_SCHEMA) search.namesOurSchema = true;
      else if (value === "pg_temp") search.touchesSession = true;
      return;
    case "relpersistence":
      if (value === "t") search.touchesSession = true;
      return;
    case "sval":
    case "name":
    case "subname":
      if (search.isAboutSchemas && value === OUR_SCHEMA) search.namesOurSchema = true;
      if (search.hasCode && OUR_SCHEMA_IN_CODE.test(value)) search.namesOurSchema = true;
      return;
    default:
      return;
  }
}

/** `[lockkeeper, history]`: a list of names whose first is the schema. */
function isQualifiedByUs(names: readonly unknown[], key: string): boolean {
  if (COLUMN_LISTS.has(key) || (key === "fields" && names.length < 3)) return false;
  return stringOf(names[0]) === OUR_SCHEMA && stringOf(names[1]) !== undefined;
}

/** Lists of names that are columns, each for itself. */
const COLUMN_LISTS: ReadonlySet<string> = new Set([
  "pk_attrs",
  "fk_attrs",
  "fk_del_set_cols",
  "keys",
  "including",
  "colnames",
  "colNames",
]);

/** `set_config(…, true)` ends with its transaction; any other form may not. */
function visitCall(call: unknown, search: Search): void {
  const name = stringOf(listOf(call, "funcname").at(-1));
  if (name === undefined || !SESSION_FUNCTIONS.test(name)) return;
  const args = listOf(call, "args");
  if (name === "set_config" && isOurSetting(constantOf(args[0], "sval"))) search.namesOurSchema = true;
  if (name === "set_config" && constantOf(args[2], "boolval") === true) return;
  search.touchesSession = true;
}

function setsOurs(statement: { readonly name?: string; readonly args?: readonly Node[] }): boolean {
  if (isOurSetting(statement.name)) return true;
  return (
    statement.name === "search_path" &&
    statement.args?.some((arg) => constantOf(arg, "sval") === OUR_SCHEMA) === true
  );
}

function isOurSetting(name: unknown): boolean {
  return typeof name === "string" && name.toLowerCase().startsWith(`${OUR_SCHEMA}.`);
}

/** `DROP SCHEMA x`, `GRANT … ON ALL TABLES IN SCHEMA x`, `CREATE EXTENSION … SCHEMA x`, `REINDEX SCHEMA x`. */
function isAboutSchemas(root: Node): boolean {
  if ("CreateExtensionStmt" in root || "AlterDefaultPrivilegesStmt" in root) return true;
  const [statement] = Object.values(root);
  return Object.values(statement ?? {}).some(
    (value) =>
      value === "OBJECT_SCHEMA" || value === "ACL_TARGET_ALL_IN_SCHEMA" || value === "REINDEX_OBJECT_SCHEMA",
  );
}

function stringOf(node: unknown): string | undefined {
  const text = field(field(node, "String"), "sval");
  return typeof text === "string" ? text : undefined;
}

/** Value of a literal: `{A_Const: {sval: {sval: "x"}}}`; the tree leaves `false`, 0 and empty text out. */
function constantOf(node: unknown, type: "sval" | "boolval"): unknown {
  return field(field(field(node, "A_Const"), type), type);
}

function listOf(value: unknown, key: string): readonly unknown[] {
  const list = field(value, key);
  return Array.isArray(list) ? list : [];
}

function field(value: unknown, key: string): unknown {
  return typeof value === "object" && value !== null && Object.hasOwn(value, key)
    ? Reflect.get(value, key)
    : undefined;
}
