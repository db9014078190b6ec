import type { StatementKind } from "../migration.ts";
import { fieldOf, itemsOf, isTrue, numberOf, textOf, entriesOf } from "./field.ts";
import {
  areIdempotentUpdates,
  isIdempotentDelete,
  isIdempotentPipeline,
  isIdempotentUpdate,
} from "./idempotence.ts";
import type { Command, DocumentValue, Value } from "./value.ts";

/** What is known of a command before it is sent. */
export interface CommandFacts {
  readonly kind: Extract<StatementKind, "transactional" | "repeatable" | "once">;
  /** whether a second time changes nothing more, which only matters where no transaction can tell; of what is not known: no */
  readonly isRepeatable: boolean;
  /** whether it changes nothing at all */
  readonly isReading: boolean;
  /** errors of a second time that say that the first took effect, as far as anybody can still see */
  readonly doneCodes: readonly number[];
}

/** What is known of a command by its name, and of some by what they ask for. */
export function factsOf(command: Command): CommandFacts {
  const rule = Object.hasOwn(RULES, command.name) ? RULES[command.name] : undefined;
  return rule === undefined ? ONCE : rule(command.document);
}

type Rule = (command: DocumentValue) => CommandFacts;

const ONCE: CommandFacts = { kind: "once", isRepeatable: false, isReading: false, doneCodes: [] };
const REPEATABLE: CommandFacts = { ...ONCE, kind: "repeatable", isRepeatable: true };
const READING: CommandFacts = { ...REPEATABLE, isReading: true };
const READING_IN_TRANSACTION: CommandFacts = { ...READING, kind: "transactional" };

/** Error codes of the server (`src/mongo/base/error_codes.yml`). */
const codes = {
  userNotFound: 11,
  namespaceNotFound: 26,
  indexNotFound: 27,
  roleNotFound: 31,
  namespaceExists: 48,
  roleExists: 51_002,
  userExists: 51_003,
} as const;

/**
 * By a command's name. Whoever is not here runs `once`: its outcome is asked of a person where nobody saw it.
 * Names are as exact as the server has them; where it knows a second spelling, so does this.
 */
const RULES: Readonly<Record<string, Rule>> = {
  // Documents: part of a transaction, where there are transactions.
  insert: () => writing(false),
  update: (command) => writing(areIdempotentUpdates(itemsOf(fieldOf(command, "updates")))),
  delete: (command) => writing(itemsOf(fieldOf(command, "deletes")).every(isIdempotentDelete)),
  findAndModify: findAndModify,
  findandmodify: findAndModify,
  find: () => READING_IN_TRANSACTION,
  distinct: () => READING_IN_TRANSACTION,
  aggregate: aggregate,
  // Not in a transaction (the server says so), and nothing is changed.
  count: () => READING,
  mapReduce: (command) => (fieldOf(fieldOf(command, "out"), "inline") === undefined ? ONCE : READING),
  explain: () => READING,
  ping: () => READING,
  hello: () => READING,
  buildInfo: () => READING,
  connectionStatus: () => READING,
  serverStatus: () => READING,
  dbStats: () => READING,
  collStats: () => READING,
  dataSize: () => READING,
  listCollections: () => READING,
  listIndexes: () => READING,
  usersInfo: () => READING,
  rolesInfo: () => READING,
  validate: () => READING,
  replSetGetStatus: () => READING,
  currentOp: () => READING,
  // An index that is there already, or is being built, is not built again. 85 and 86, another index of its name or key, stay errors.
  createIndexes: () => REPEATABLE,
  // One name: whatever became of the first time, the index is gone. Of several, one that never was there says the same of all.
  dropIndexes: dropIndexes,
  deleteIndexes: dropIndexes,
  // The same options again change nothing.
  collMod: () => REPEATABLE,
  // There is one collection or view of that name afterwards; with other options only where it was there before.
  create: () => ({ ...REPEATABLE, doneCodes: [codes.namespaceExists] }),
  // What an application may have put into a new collection of that name meanwhile was not to stay either.
  drop: () => ({ ...REPEATABLE, doneCodes: [codes.namespaceNotFound] }),
  // Rearranges what is stored, and changes no document.
  compact: () => REPEATABLE,
  reIndex: () => REPEATABLE,
  // Users and roles are there or not, and what they may is a set.
  createUser: () => ({ ...REPEATABLE, doneCodes: [codes.userExists] }),
  updateUser: () => REPEATABLE,
  dropUser: () => ({ ...REPEATABLE, doneCodes: [codes.userNotFound] }),
  grantRolesToUser: () => REPEATABLE,
  revokeRolesFromUser: () => REPEATABLE,
  createRole: () => ({ ...REPEATABLE, doneCodes: [codes.roleExists] }),
  updateRole: () => REPEATABLE,
  dropRole: () => ({ ...REPEATABLE, doneCodes: [codes.roleNotFound] }),
  grantPrivilegesToRole: () => REPEATABLE,
  revokePrivilegesFromRole: () => REPEATABLE,
  grantRolesToRole: () => REPEATABLE,
  revokeRolesFromRole: () => REPEATABLE,
};

function writing(isRepeatable: boolean): CommandFacts {
  return { kind: "transactional", isRepeatable, isReading: false, doneCodes: [] };
}

function findAndModify(command: DocumentValue): CommandFacts {
  const q = fieldOf(command, "query") ?? { kind: "document", entries: [] };
  if (isTrue(fieldOf(command, "remove")))
    return writing(isIdempotentDelete(documentOf({ q, limit: { kind: "int32", value: 1 } })));
  const u = fieldOf(command, "update") ?? { kind: "null" };
  const upsert = fieldOf(command, "upsert") ?? { kind: "boolean", value: false };
  return writing(isIdempotentUpdate(documentOf({ q, u, upsert })));
}

function dropIndexes(command: DocumentValue): CommandFacts {
  const index = fieldOf(command, "index");
  const isOne = index?.kind !== "array" || index.items.length === 1;
  return { ...REPEATABLE, doneCodes: isOne ? [codes.indexNotFound, codes.namespaceNotFound] : [] };
}

/** Stages that only look, and that no transaction takes. */
const OUTSIDE_TRANSACTIONS = new Set([
  "$collStats",
  "$currentOp",
  "$indexStats",
  "$listSessions",
  "$listLocalSessions",
  "$planCacheStats",
  "$unionWith",
]);

function aggregate(command: DocumentValue): CommandFacts {
  if (isTrue(fieldOf(command, "explain"))) return READING;
  const stages = itemsOf(fieldOf(command, "pipeline"));
  const last = stages.at(-1);
  const target = writtenBy(last);
  if (last !== undefined && target !== undefined)
    return isRepeatableResult(command, stages, last, target) ? REPEATABLE : ONCE;
  const names = stages.flatMap((stage) => entriesOf(stage).map(([name]) => name));
  return names.some((name) => OUTSIDE_TRANSACTIONS.has(name)) ? READING : READING_IN_TRANSACTION;
}

/** The collection that a last stage `$out` or `$merge` writes to; `undefined` for any other stage. */
export function writtenBy(stage: Value | undefined): string | undefined {
  const out = fieldOf(stage, "$out");
  if (out !== undefined) return textOf(out) ?? textOf(fieldOf(out, "coll")) ?? "";
  const merge = fieldOf(stage, "$merge");
  if (merge === undefined) return undefined;
  const into = fieldOf(merge, "into");
  return textOf(merge) ?? textOf(into) ?? textOf(fieldOf(into, "coll")) ?? "";
}

/**
 * Whether a second time ends in the same collection: it is made of others, or of itself by stages that change nothing
 * more. That a view is read through which the written collection shows cannot be seen here.
 */
function isRepeatableResult(
  command: DocumentValue,
  stages: readonly Value[],
  last: Value,
  target: string,
): boolean {
  const before = stages.slice(0, -1);
  const isOfItself =
    textOf(command.entries[0]?.[1]) === target || before.some((stage) => mentions(stage, target));
  if (isOfItself && !isIdempotentPipeline(before)) return false;
  if (before.some((stage) => fieldOf(stage, "$sample") !== undefined)) return false;
  const merge = fieldOf(last, "$merge");
  if (merge === undefined) return true;
  const matched = fieldOf(merge, "whenMatched");
  // With a pipeline it may add to what it has merged before; with "fail" it finds its own documents.
  if (matched !== undefined && !/^(replace|keepExisting|merge)$/.test(textOf(matched) ?? "")) return false;
  // Without its _id, a document is another one each time.
  return fieldOf(merge, "on") !== undefined || !before.some(removesId);
}

/** Whether a stage names the collection anywhere, as `$lookup`, `$unionWith` and `$facet` may. */
function mentions(value: Value, collection: string): boolean {
  if (value.kind === "string") return value.text === collection;
  if (value.kind === "array") return value.items.some((item) => mentions(item, collection));
  return value.kind === "document" && value.entries.some(([, inner]) => mentions(inner, collection));
}

function removesId(stage: Value): boolean {
  const project = fieldOf(fieldOf(stage, "$project"), "_id");
  const unset = fieldOf(stage, "$unset");
  const isProjectedAway =
    project !== undefined && (numberOf(project) === 0 || project.kind === "boolean") && !isTrue(project);
  const replaces =
    fieldOf(stage, "$replaceRoot") ?? fieldOf(stage, "$replaceWith") ?? fieldOf(stage, "$unwind");
  return (
    isProjectedAway ||
    replaces !== undefined ||
    [unset, ...itemsOf(unset)].some((path) => textOf(path) === "_id")
  );
}

function documentOf(fields: Readonly<Record<string, Value>>): DocumentValue {
  return { kind: "document", entries: Object.entries(fields) };
}
