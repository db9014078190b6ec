import { entriesOf, fieldOf, isTrue, itemsOf, numberOf, textOf } from "./field.ts";
import type { Entry, Value } from "./value.ts";

/**
 * Whether running a pipeline on its own result gives that result again. Each stage sets or removes fields, or looks at
 * them; it does as long as nothing that it looks at is among what any stage sets or removes. Stages that are not known
 * here, and what a pipeline makes of a random number, are taken for changing.
 *
 * @param stages - of `aggregate`, or of an update
 */
export function isIdempotentPipeline(stages: readonly Value[]): boolean {
  const effects = stages.map(effectOf);
  const known = effects.filter((effect) => effect !== undefined);
  if (known.length < effects.length) return false;
  const written = new Set(known.flatMap(({ writes }) => writes));
  return known.every(
    ({ reads, keeps }) =>
      reads.every((field) => !written.has(field)) &&
      (keeps === undefined || known.every((effect) => effect.reads.every((field) => keeps.has(field)))),
  );
}

/** Whether the updates of one command, all of them done a second time, do nothing more. */
export function areIdempotentUpdates(updates: readonly Value[]): boolean {
  if (!updates.every(isIdempotentUpdate)) return false;
  if (updates.length < 2) return true;
  // One of them may make a document match what another asks for.
  const written = updates.map((update) => fieldsSetBy(fieldOf(update, "u")));
  return updates.every((update, index) => {
    const reads = fieldsOfQuery(fieldOf(update, "q"));
    return written.every(
      (fields, other) =>
        fields !== undefined &&
        (other === index || reads?.every((field) => !fields.includes(field)) === true),
    );
  });
}

/** As {@link areIdempotentUpdates}, of one with the fields `q`, `u`, `multi` and `upsert`. */
export function isIdempotentUpdate(update: Value): boolean {
  const query = fieldOf(update, "q");
  // Of several that match, a second time would take another; what no longer matches would be inserted.
  const isUpsert = isTrue(fieldOf(update, "upsert"));
  if (isUpsert && entriesOf(query).length !== 1) return false;
  if ((isUpsert || !isTrue(fieldOf(update, "multi"))) && !namesOneId(query)) return false;
  const change = fieldOf(update, "u");
  if (change?.kind === "array") return isIdempotentPipeline(change.items);
  return isIdempotentChange(entriesOf(change));
}

/** Whether a deletion does nothing more where it is done a second time: all that match, or the one of an `_id`. */
export function isIdempotentDelete(deletion: Value): boolean {
  return numberOf(fieldOf(deletion, "limit")) === 0 || namesOneId(fieldOf(deletion, "q"));
}

/** What one stage looks at and changes: first parts of field paths; `*` is the whole document. */
interface Effect {
  readonly reads: readonly string[];
  readonly writes: readonly string[];
  /** of an inclusion: all other fields go */
  readonly keeps?: ReadonlySet<string>;
}

/** Operators whose value is set, not added to: the second time it is the same. */
const SETTING = new Set([
  "$set",
  "$unset",
  "$setOnInsert",
  "$min",
  "$max",
  "$currentDate",
  "$addToSet",
  "$pull",
  "$pullAll",
]);

/** `$rename` with another operator, or in a circle, may take what it has just made; alone it finds nothing to rename. */
function isIdempotentChange(change: readonly Entry[]): boolean {
  if (change.length === 0) return false;
  if (change.every(([operator]) => SETTING.has(operator))) return true;
  if (change.every(([operator]) => !operator.startsWith("$"))) return true;
  const [only, ...others] = change;
  if (only?.[0] !== "$rename" || others.length > 0) return false;
  const targets = new Set(entriesOf(only[1]).map(([, to]) => textOf(to)));
  return entriesOf(only[1]).every(([from]) => !targets.has(from));
}

/** Fields that an update's operators set; undefined where it is written otherwise, or looks at fields too. */
function fieldsSetBy(change: Value | undefined): readonly string[] | undefined {
  const operators = entriesOf(change);
  if (!operators.every(([operator]) => SETTING.has(operator))) return undefined;
  return operators.flatMap(([, fields]) => entriesOf(fields).map(([path]) => firstPart(path)));
}

/** Whether a query matches one document at most, by its `_id`. */
function namesOneId(query: Value | undefined): boolean {
  const id = fieldOf(query, "_id");
  if (id === undefined) return false;
  return entriesOf(id).every(([key]) => key === "$eq" || !key.startsWith("$")) && id.kind !== "regex";
}

function effectOf(stage: Value): Effect | undefined {
  const [only, ...others] = entriesOf(stage);
  if (only === undefined || others.length > 0) return undefined;
  const [name, value] = only;
  switch (name) {
    case "$set":
    case "$addFields":
      return setting(entriesOf(value));
    case "$unset":
      return removing(value.kind === "array" ? value.items : [value]);
    case "$project":
      return projecting(entriesOf(value));
    case "$match":
      return matching(value);
    case "$sort":
      return { reads: [], writes: [] };
    case "$lookup":
      return lookingUp(value);
    default:
      return undefined;
  }
}

function setting(fields: readonly Entry[]): Effect | undefined {
  const reads: string[] = [];
  for (const [path, expression] of fields) {
    const found = referencesOf(withoutDefault(path, expression));
    if (found === undefined) return undefined;
    reads.push(...found);
  }
  return { reads, writes: fields.map(([path]) => firstPart(path)) };
}

/** `{$ifNull: ["$field", …]}` set to that very field keeps what is there, so the field is not counted as looked at. */
function withoutDefault(path: string, expression: Value): Value {
  const [only, ...others] = entriesOf(expression);
  if (only?.[0] !== "$ifNull" || others.length > 0) return expression;
  const [own, ...defaults] = itemsOf(only[1]);
  return textOf(own) === `$${path}` ? { kind: "array", items: defaults } : expression;
}

function removing(paths: readonly Value[]): Effect | undefined {
  const writes = paths.map(textOf).filter((path) => path !== undefined);
  return writes.length === paths.length ? { reads: [], writes: writes.map(firstPart) } : undefined;
}

function projecting(fields: readonly Entry[]): Effect | undefined {
  const others = fields.filter(([path]) => path !== "_id");
  const removed = fields.filter(([, value]) => isFlag(value) && !isTrue(value)).map(([path]) => path);
  if (removed.length > 0 && others.every(([path]) => removed.includes(path)))
    return { reads: [], writes: removed.map(firstPart) };
  const kept = fields.filter(([, value]) => isFlag(value) && isTrue(value)).map(([path]) => path);
  if (kept.some((path) => path.includes("."))) return undefined;
  const computed = setting(fields.filter(([, value]) => !isFlag(value)));
  if (computed === undefined) return undefined;
  const keeps = new Set([...kept, ...(removed.includes("_id") ? [] : ["_id"])]);
  return { reads: computed.reads, writes: [...computed.writes, ...removed.map(firstPart)], keeps };
}

/** A filter leaves what it has left once already, unless what it asks for is changed. */
function matching(query: Value): Effect | undefined {
  const reads = fieldsOfQuery(query);
  return reads === undefined ? undefined : { reads, writes: [] };
}

function lookingUp(value: Value): Effect | undefined {
  const local = textOf(fieldOf(value, "localField"));
  const as = textOf(fieldOf(value, "as"));
  if (local === undefined || as === undefined || fieldOf(value, "pipeline") !== undefined) return undefined;
  return { reads: [firstPart(local)], writes: [firstPart(as)] };
}

function fieldsOfQuery(query: Value | undefined): readonly string[] | undefined {
  const reads: string[] = [];
  for (const [key, value] of entriesOf(query)) {
    if (!key.startsWith("$")) {
      reads.push(firstPart(key));
      continue;
    }
    const inner =
      key === "$and" || key === "$or" || key === "$nor"
        ? itemsOf(value).map(fieldsOfQuery)
        : [key === "$expr" ? referencesOf(value) : undefined];
    for (const found of inner) {
      if (found === undefined) return undefined;
      reads.push(...found);
    }
  }
  return reads;
}

/** Fields that an expression looks at; undefined where it may look at all of them, or gives another value each time. */
function referencesOf(expression: Value): readonly string[] | undefined {
  switch (expression.kind) {
    case "string":
      return referenceOf(expression.text);
    case "array":
      return all(expression.items.map(referencesOf));
    case "document":
      return all(
        expression.entries.map(([key, value]) => {
          if (key === "$literal") return [];
          return CHANGING.has(key) ? undefined : referencesOf(value);
        }),
      );
    default:
      return [];
  }
}

const CHANGING = new Set(["$rand", "$function", "$accumulator", "$sampleRate"]);

/** `$a.b` looks at `a`; `$$NOW` differs, but is set to the time of the migration either way. */
function referenceOf(text: string): readonly string[] | undefined {
  if (!text.startsWith("$")) return [];
  if (!text.startsWith("$$")) return [firstPart(text.slice(1))];
  const variable = firstPart(text.slice(2));
  // Variables of $map, $filter, $reduce and $let stand for what their own input looks at.
  return variable === "ROOT" || variable === "CURRENT" ? undefined : [];
}

function all(parts: readonly (readonly string[] | undefined)[]): readonly string[] | undefined {
  return parts.includes(undefined) ? undefined : parts.flatMap((part) => part ?? []);
}

function isFlag(value: Value): boolean {
  return value.kind === "boolean" || numberOf(value) !== undefined;
}

function firstPart(path: string): string {
  return path.split(".", 1)[0] ?? path;
}
