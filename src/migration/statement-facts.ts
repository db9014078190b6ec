import type { StatementKind } from "./migration.ts";
import type { DefElem, Node } from "./parse-sql.ts";
import { searchTree } from "./search-tree.ts";

/** What decides how one statement may run, apart from its locks. */
export interface StatementFacts {
  /** other than `transactional`: PostgreSQL refuses it inside a transaction */
  readonly kind: StatementKind;
  /** the kind to run it as where the file asks for `tx=none`: such statements may also commit, or take more than one transaction */
  readonly kindOutside: StatementKind;
  readonly control: TransactionControl | undefined;
  /** false: it leaves something behind in the session, or depends on it */
  readonly isAlone: boolean;
  readonly refusal: Refusal | undefined;
}

/** A statement that begins or ends a transaction, or a part of one. */
export type TransactionControl =
  /** `BEGIN` or `START TRANSACTION` that asks for nothing but the default */
  | "begin"
  /** `COMMIT` or `END` */
  | "commit"
  /** `SAVEPOINT`, `RELEASE`, `ROLLBACK TO` */
  | "savepoint"
  /** `BEGIN` with an isolation level or access mode of its own, or `SET TRANSACTION` */
  | "mode"
  | "other";

/** Why a statement is taken in no migration, and what to do instead. */
export interface Refusal {
  readonly what: string;
  readonly hint: string;
}

/** The facts of a plain statement: it runs in a transaction and leaves nothing behind. */
export const ORDINARY: StatementFacts = {
  kind: "transactional",
  kindOutside: "transactional",
  control: undefined,
  isAlone: true,
  refusal: undefined,
};

/** Reads the facts of one statement from its parse tree. */
export function factsOf(node: Node): StatementFacts {
  const found = searchTree(node);
  const kind = kindOf(node);
  return {
    kind,
    kindOutside: kind === "transactional" ? kindOutside(node) : kind,
    control: controlOf(node),
    isAlone: !found.touchesSession && !isBoundToSession(node),
    refusal: found.namesOurSchema ? OUR_SCHEMA : refusalOf(node),
  };
}

/** Where an option is given without a value it is on: `VACUUM (FULL)`. */
export function isOn(options: readonly Node[] | undefined, name: string): boolean {
  const option = optionOf(options, name);
  if (option === undefined) return false;
  if (option.arg === undefined) return true;
  if ("Integer" in option.arg) return option.arg.Integer.ival !== undefined && option.arg.Integer.ival !== 0;
  if ("Boolean" in option.arg) return option.arg.Boolean.boolval === true;
  if ("String" in option.arg)
    return !["false", "off", "0", "no"].includes((option.arg.String.sval ?? "").toLowerCase());
  return true;
}

const OUR_SCHEMA: Refusal = {
  what: `names the schema "lockkeeper", which holds this program's own records`,
  hint: "leave it out; repair and baseline are the commands that change those records",
};

/** The statements that PostgreSQL refuses inside a transaction (SQLSTATE 25001). */
function kindOf(node: Node): StatementKind {
  if ("IndexStmt" in node)
    return node.IndexStmt.concurrent === true ? "create-index-concurrently" : "transactional";
  if ("DropStmt" in node)
    return node.DropStmt.concurrent === true ? "drop-index-concurrently" : "transactional";
  if ("ReindexStmt" in node) {
    if (isOn(node.ReindexStmt.params, "concurrently")) return "reindex-concurrently";
    return isSingleReindex(node.ReindexStmt.kind) ? "transactional" : "reindex-many";
  }
  if ("AlterTableStmt" in node) {
    return node.AlterTableStmt.cmds?.some(isDetachConcurrently) === true
      ? "detach-partition-concurrently"
      : "transactional";
  }
  if ("VacuumStmt" in node) return node.VacuumStmt.is_vacuumcmd === true ? "vacuum" : "transactional";
  if ("ClusterStmt" in node) return node.ClusterStmt.relation === undefined ? "cluster-all" : "transactional";
  if ("AlterSystemStmt" in node) return "alter-system";
  if ("CreatedbStmt" in node) return "create-database";
  if ("DropdbStmt" in node) return "drop-database";
  if ("AlterDatabaseStmt" in node) {
    return optionOf(node.AlterDatabaseStmt.options, "tablespace") === undefined
      ? "transactional"
      : "alter-database-tablespace";
  }
  if ("CreateTableSpaceStmt" in node) return "create-tablespace";
  if ("DropTableSpaceStmt" in node) return "drop-tablespace";
  if ("CreateSubscriptionStmt" in node) {
    const { options } = node.CreateSubscriptionStmt;
    return isOff(options, "connect") || isOff(options, "create_slot")
      ? "transactional"
      : "create-subscription";
  }
  if ("DropSubscriptionStmt" in node) return "drop-subscription";
  if ("DiscardStmt" in node)
    return node.DiscardStmt.target === "DISCARD_ALL" ? "discard-all" : "transactional";
  return "transactional";
}

/** Taken inside a transaction by default; outside one they can do more: commit as they go, or work on partitioned tables. */
function kindOutside(node: Node): StatementKind {
  if ("CallStmt" in node) return "call";
  if ("DoStmt" in node) return MAY_COMMIT.test(JSON.stringify(node)) ? "call" : "transactional";
  if ("ReindexStmt" in node) return "reindex-many";
  if ("ClusterStmt" in node) return "cluster-all";
  return "transactional";
}

const MAY_COMMIT = /\b(commit|rollback)\b/i;

function isSingleReindex(kind: string | undefined): boolean {
  return kind === "REINDEX_OBJECT_TABLE" || kind === "REINDEX_OBJECT_INDEX";
}

function isDetachConcurrently(command: Node): boolean {
  if (!("AlterTableCmd" in command)) return false;
  const { subtype, def } = command.AlterTableCmd;
  if (subtype !== "AT_DetachPartition" || def === undefined) return false;
  return "PartitionCmd" in def && def.PartitionCmd.concurrent === true;
}

function controlOf(node: Node): TransactionControl | undefined {
  if ("VariableSetStmt" in node) {
    const { kind, name } = node.VariableSetStmt;
    return kind === "VAR_SET_MULTI" && name !== "SESSION CHARACTERISTICS" ? "mode" : undefined;
  }
  if (!("TransactionStmt" in node)) return undefined;
  const { kind, options, chain } = node.TransactionStmt;
  switch (kind) {
    case "TRANS_STMT_BEGIN":
    case "TRANS_STMT_START":
      return options === undefined || options.every(isDefaultMode) ? "begin" : "mode";
    case "TRANS_STMT_COMMIT":
      return chain === true ? "other" : "commit";
    case "TRANS_STMT_SAVEPOINT":
    case "TRANS_STMT_RELEASE":
    case "TRANS_STMT_ROLLBACK_TO":
      return "savepoint";
    default:
      return "other";
  }
}

/** What our own transaction has anyway: READ COMMITTED (READ UNCOMMITTED is the same here), READ WRITE, NOT DEFERRABLE. */
function isDefaultMode(option: Node): boolean {
  if (!("DefElem" in option)) return false;
  const { defname, arg } = option.DefElem;
  if (arg === undefined || !("A_Const" in arg)) return false;
  if (defname === "transaction_isolation") return /^read (un)?committed$/.test(arg.A_Const.sval?.sval ?? "");
  if (defname === "transaction_read_only" || defname === "transaction_deferrable")
    return (arg.A_Const.ival?.ival ?? 0) === 0;
  return false;
}

/** What outlives its transaction in the session, or needs something that did. */
function isBoundToSession(node: Node): boolean {
  if ("VariableSetStmt" in node) {
    const { is_local: isLocal, name } = node.VariableSetStmt;
    return isLocal !== true || name === "role" || name === "session_authorization";
  }
  if ("DeclareCursorStmt" in node) return ((node.DeclareCursorStmt.options ?? 0) & CURSOR_OPT_HOLD) !== 0;
  return Object.keys(node).some((key) => SESSION_STATEMENTS.has(key));
}

/** `parsenodes.h` */
const CURSOR_OPT_HOLD = 0x20;

const SESSION_STATEMENTS: ReadonlySet<string> = new Set([
  "TransactionStmt",
  "DiscardStmt",
  "PrepareStmt",
  "ExecuteStmt",
  "DeallocateStmt",
  "ListenStmt",
  "UnlistenStmt",
  "LoadStmt",
  "CopyStmt",
  "CallStmt",
  "DoStmt",
]);

/**
 * Data that no file can carry, and what would wait for our own fence for ever (nothing detects it: the two are
 * different sessions, and neither waits for the other in the database's eyes).
 */
function refusalOf(node: Node): Refusal | undefined {
  if ("CopyStmt" in node) {
    const { is_from: isFrom, filename, is_program: isProgram } = node.CopyStmt;
    return isFrom === true && filename === undefined && isProgram !== true ? COPY_FROM_STDIN : undefined;
  }
  if ("VacuumStmt" in node) {
    const { options, rels, is_vacuumcmd: isVacuum } = node.VacuumStmt;
    return isVacuum === true && isOn(options, "full") && rels === undefined
      ? wholeDatabase("VACUUM FULL")
      : undefined;
  }
  if ("ClusterStmt" in node)
    return node.ClusterStmt.relation === undefined ? wholeDatabase("CLUSTER") : undefined;
  if ("ReindexStmt" in node) {
    if (node.ReindexStmt.kind === "REINDEX_OBJECT_DATABASE") return wholeDatabase("REINDEX DATABASE");
    if (node.ReindexStmt.kind === "REINDEX_OBJECT_SYSTEM") return wholeDatabase("REINDEX SYSTEM");
  }
  return undefined;
}

/** `COPY … FROM STDIN`, with or without data after it. */
export const COPY_FROM_STDIN: Refusal = {
  what: "COPY FROM STDIN takes its data from psql, not from a migration",
  hint: "write the rows as INSERT statements (pg_dump --inserts does)",
};

function wholeDatabase(command: string): Refusal {
  return {
    what: `${command} on the whole database would wait for this program's own lock without end`,
    hint: "name the tables one by one",
  };
}

function optionOf(options: readonly Node[] | undefined, name: string): DefElem | undefined {
  for (const option of options ?? []) {
    if ("DefElem" in option && option.DefElem.defname === name) return option.DefElem;
  }
  return undefined;
}

function isOff(options: readonly Node[] | undefined, name: string): boolean {
  return optionOf(options, name) !== undefined && !isOn(options, name);
}
