import {
  Binary,
  BSONRegExp,
  BSONSymbol,
  Code,
  Decimal128,
  Double,
  Int32,
  Long,
  MaxKey,
  MinKey,
  ObjectId,
  Timestamp,
} from "mongodb";

import { RunnerError } from "../../error.ts";
import type { Command, DocumentValue, Value } from "../../migration/mongo/value.ts";

/** A command as the driver takes it: the top level is a plain object, because the driver copies its keys into another. */
export type CommandDocument = Record<string, unknown>;

/**
 * What the driver sends for a command: keys in the file's order and as often as they stand there, numbers of the
 * file's types.
 *
 * @throws RunnerError `COMMAND_SYNTAX` - a value that the driver cannot send: a key twice at the top level, or one that is a number
 */
export function toCommandDocument(command: Command, path: string): CommandDocument {
  const refuse = (what: string, hint: string): RunnerError =>
    new RunnerError("COMMAND_SYNTAX", `${path}:${command.line}: ${what} in "${command.name}"`, {
      hint,
      fields: { migration: path, line: command.line },
    });
  const fields = new Map<string, unknown>();
  for (const [key, value] of command.document.entries) {
    if (fields.has(key)) throw refuse(`the field "${key}" is given twice`, "keep one of them");
    // An object's integer keys come before all others, and the first key is the command's name.
    if (/^(0|[1-9][0-9]*)$/.test(key))
      throw refuse(`the field "${key}" is a number`, "no command has such a field: remove it");
    try {
      fields.set(key, toBson(value));
    } catch (cause) {
      const what = cause instanceof UnsendableValue ? cause.message : "a value that BSON has no room for";
      throw refuse(what, "write another value");
    }
  }
  return Object.fromEntries(fields);
}

/** What the driver sends for one value. */
export function toBson(value: Value): unknown {
  switch (value.kind) {
    case "document":
      return toDocument(value);
    case "array":
      return value.items.map(toBson);
    case "string":
      return value.text;
    case "symbol":
      return new BSONSymbol(value.text);
    case "boolean":
      return value.value;
    case "null":
      return null;
    case "undefined":
      throw new UnsendableValue("the value undefined, which MongoDB has given up, cannot be sent");
    case "minKey":
      return new MinKey();
    case "maxKey":
      return new MaxKey();
    case "int32":
      return new Int32(value.value);
    case "double":
      return new Double(value.value);
    case "int64":
      return Long.fromBigInt(value.value);
    case "decimal128":
      return Decimal128.fromString(value.text);
    case "objectId":
      return ObjectId.createFromHexString(value.hex);
    case "date":
      return toDate(value.ms);
    case "binary":
      return new Binary(value.bytes, value.subType);
    case "regex":
      return new BSONRegExp(value.pattern, value.options);
    case "timestamp":
      return new Timestamp({ t: value.seconds, i: value.increment });
    case "code":
      return new Code(value.text, value.scope === undefined ? null : toDocument(value.scope));
  }
}

/** What the message of `toCommandDocument` says of a value. */
class UnsendableValue extends Error {}

/** A Map, because an object would put integer keys first. */
function toDocument({ entries }: DocumentValue): Map<string, unknown> {
  const pairs = entries.map(([key, value]) => [key, toBson(value)] as const);
  const isRepeated = new Set(pairs.map(([key]) => key)).size < pairs.length;
  return isRepeated ? new RepeatedKeys(pairs) : new Map(pairs);
}

/** A document with a key more than once: what serializes it asks for no more than its entries. */
class RepeatedKeys extends Map<string, unknown> {
  readonly #pairs: readonly (readonly [string, unknown])[];

  constructor(pairs: readonly (readonly [string, unknown])[]) {
    super(pairs);
    this.#pairs = pairs;
  }

  override entries(): MapIterator<[string, unknown]> {
    return this.#pairs.map(([key, value]): [string, unknown] => [key, value])[Symbol.iterator]();
  }
}

/** milliseconds on each side of 1970 that a Date can hold, a thirtieth of what BSON can */
const mostDateMs = 8_640_000_000_000_000n;

function toDate(ms: bigint): Date {
  if (ms > mostDateMs || ms < -mostDateMs)
    throw new UnsendableValue("a date more than 270,000 years away cannot be sent");
  return new Date(Number(ms));
}
