import type { JsonText } from "./json-text.ts";
import type { Entry, Value } from "./value.ts";

/**
 * Extended JSON's wrappers, such as `{"$oid": "…"}`. Only a document's first key makes it one, so
 * `{"$regex": …, "$options": …}` and `{"$type": …}` stay the documents that a query wants.
 *
 * Read as mongo-driver 1.7.5 does (`bson/bsonrw/extjson_wrappers.go`, canonical), with three differences: `$date` may
 * also hold an ISO 8601 text or a number of milliseconds; `$dbPointer`, hexadecimal doubles and binary subtypes of more
 * than two digits are refused.
 */
export function isWrapper(key: string): boolean {
  return Object.hasOwn(WRAPPERS, key);
}

/** Where a wrapper's document was found, and which values in it were themselves written as wrappers. */
export interface WrapperPlace {
  readonly json: JsonText;
  /** where the document begins */
  readonly start: number;
  readonly wrapped: WeakSet<Value>;
}

/**
 * What a document stands for whose first key is a wrapper's.
 *
 * @throws RunnerError `COMMAND_SYNTAX` - it holds something else than that key wants
 */
export function unwrap(entries: readonly Entry[], place: WrapperPlace): Value {
  const key = entries[0]?.[0] ?? "";
  const wrapper = WRAPPERS[key];
  const value = wrapper?.read(entries, place);
  if (value !== undefined) {
    place.wrapped.add(value);
    return value;
  }
  const { json, start } = place;
  throw json.error(
    start,
    `what "${key}" stands for cannot be told`,
    wrapper === undefined ? "write it otherwise" : `write it as ${wrapper.example}`,
  );
}

interface Wrapper {
  readonly example: string;
  /** undefined: it cannot be read */
  read(entries: readonly Entry[], place: WrapperPlace): Value | undefined;
}

const WRAPPERS: Readonly<Record<string, Wrapper>> = {
  $oid: ofText('{"$oid": "<24 hex digits>"}', (text) =>
    /^[0-9A-Fa-f]{24}$/.test(text) ? { kind: "objectId", hex: text.toLowerCase() } : undefined,
  ),
  $symbol: ofText('{"$symbol": "text"}', (text) => ({ kind: "symbol", text })),
  $numberInt: ofText('{"$numberInt": "1"}, from -2147483648 to 2147483647', (text) => {
    const integer = readInteger(text, 32);
    return integer === undefined ? undefined : { kind: "int32", value: Number(integer) };
  }),
  $numberLong: ofText('{"$numberLong": "1"}, of 64 bits', (text) => {
    const value = readInteger(text, 64);
    return value === undefined ? undefined : { kind: "int64", value };
  }),
  $numberDouble: ofText('{"$numberDouble": "1.5"}, "Infinity", "-Infinity" or "NaN"', (text) => {
    const value = readDouble(text);
    return value === undefined ? undefined : { kind: "double", value };
  }),
  $numberDecimal: ofText('{"$numberDecimal": "1.10"}, of up to 34 digits', (text) =>
    isDecimal128(text) ? { kind: "decimal128", text } : undefined,
  ),
  $minKey: { example: '{"$minKey": 1}', read: ofOne({ kind: "minKey" }) },
  $maxKey: { example: '{"$maxKey": 1}', read: ofOne({ kind: "maxKey" }) },
  $undefined: {
    example: '{"$undefined": true}',
    read: ([[, value] = NOTHING, ...rest]) =>
      rest.length === 0 && value.kind === "boolean" && value.value ? { kind: "undefined" } : undefined,
  },
  $date: {
    example: '{"$date": {"$numberLong": "<milliseconds since 1970>"}} or {"$date": "2021-12-31T23:59:59Z"}',
    read: readDate,
  },
  $timestamp: { example: '{"$timestamp": {"t": 1, "i": 1}}', read: readTimestamp },
  $binary: { example: '{"$binary": {"base64": "AQID", "subType": "00"}}', read: readBinary },
  $uuid: ofText('{"$uuid": "73ffd264-44b3-4c69-90e8-e7d1dfc035d4"}', (text) =>
    UUID.test(text)
      ? { kind: "binary", bytes: Buffer.from(text.replaceAll("-", ""), "hex"), subType: 4 }
      : undefined,
  ),
  $regularExpression: {
    example: '{"$regularExpression": {"pattern": "^a", "options": "i"}}',
    read: readRegex,
  },
  $code: { example: '{"$code": "…"} or {"$code": "…", "$scope": {}}', read: readCode },
  $scope: { example: '{"$code": "…", "$scope": {}}, $code first', read: () => undefined },
  $dbPointer: { example: 'a document {"$ref": "collection", "$id": …}', read: () => undefined },
};

const NOTHING: Entry = ["", { kind: "null" }];
const UUID = /^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$/;

/** One key, and a text. */
function ofText(example: string, readText: (text: string) => Value | undefined): Wrapper {
  return {
    example,
    read: ([[, value] = NOTHING, ...rest]) =>
      rest.length === 0 && value.kind === "string" ? readText(value.text) : undefined,
  };
}

/** One key, and the number 1. */
function ofOne(value: { readonly kind: "minKey" | "maxKey" }): Wrapper["read"] {
  return ([[, one] = NOTHING, ...rest], { wrapped }) =>
    rest.length === 0 && one.kind === "int32" && one.value === 1 && !wrapped.has(one)
      ? { ...value }
      : undefined;
}

function readDate(
  [[, value] = NOTHING, ...rest]: readonly Entry[],
  { json, start, wrapped }: WrapperPlace,
): Value | undefined {
  if (rest.length > 0) return undefined;
  if (wrapped.has(value)) return value.kind === "int64" ? { kind: "date", ms: value.value } : undefined;
  const ms = readLooseDate(value);
  if (ms === undefined) return undefined;
  json.remark("beyond", start, 'a $date that is not written as {"$date": {"$numberLong": "…"}}');
  return { kind: "date", ms };
}

/** A date as relaxed Extended JSON writes it. */
function readLooseDate(value: Value): bigint | undefined {
  if (value.kind === "int32" || value.kind === "int64") return BigInt(value.value);
  return value.kind === "string" ? readIsoDate(value.text) : undefined;
}

/** Milliseconds of an ISO 8601 instant; digits after the third of the second's fraction are dropped. */
function readIsoDate(text: string): bigint | undefined {
  const [, day, time, fraction = "", sign, hours, minutes] =
    /^([0-9]{4}-[0-9]{2}-[0-9]{2})T([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(?:Z|([-+])([0-9]{2}):?([0-9]{2}))$/.exec(
      text,
    ) ?? [];
  if (day === undefined || time === undefined) return undefined;
  const written = `${day}T${time}.${fraction.slice(0, 3).padEnd(3, "0")}Z`;
  const date = new Date(written);
  // What is no day of its month or no hour of a day comes back as another, or as none.
  if (Number.isNaN(date.getTime()) || date.toISOString() !== written) return undefined;
  const offset = sign === undefined ? 0 : (Number(hours) * 60 + Number(minutes)) * 60_000;
  return BigInt(date.getTime() - (sign === "-" ? -offset : offset));
}

function readTimestamp(
  [[, value] = NOTHING, ...rest]: readonly Entry[],
  { wrapped }: WrapperPlace,
): Value | undefined {
  const [t, i] = rest.length === 0 ? twoFields(value, "t", "i") : [];
  const seconds = readUint32(t, wrapped);
  const increment = readUint32(i, wrapped);
  if (seconds === undefined || increment === undefined) return undefined;
  return { kind: "timestamp", seconds, increment };
}

function readUint32(value: Value | undefined, wrapped: WeakSet<Value>): number | undefined {
  if ((value?.kind !== "int32" && value?.kind !== "int64") || wrapped.has(value)) return undefined;
  const number = Number(value.value);
  return number >= 0 && number <= 0xffff_ffff ? number : undefined;
}

function readBinary([[, value] = NOTHING, ...rest]: readonly Entry[]): Value | undefined {
  if (value.kind === "string") {
    const [type, ...others] = rest;
    return type?.[0] === "$type" && others.length === 0 ? toBinary(value, type[1]) : undefined;
  }
  const [base64, subType] = rest.length === 0 ? twoFields(value, "base64", "subType") : [];
  return toBinary(base64, subType);
}

function toBinary(base64: Value | undefined, subType: Value | undefined): Value | undefined {
  if (base64?.kind !== "string" || subType?.kind !== "string") return undefined;
  if (!/^[0-9A-Fa-f]{1,2}$/.test(subType.text)) return undefined;
  const text = base64.text.replace(/[\r\n]/g, "");
  const bytes = Buffer.from(text, "base64");
  // Node skips what is not base64; what was all of it comes back (the last letter's unused bits aside).
  if (!/^[A-Za-z0-9+/]*={0,2}$/.test(text) || text.length !== Math.ceil(bytes.length / 3) * 4)
    return undefined;
  return { kind: "binary", bytes, subType: Number.parseInt(subType.text, 16) };
}

function readRegex([[, value] = NOTHING, ...rest]: readonly Entry[]): Value | undefined {
  const [pattern, options] = rest.length === 0 ? twoFields(value, "pattern", "options") : [];
  if (pattern?.kind !== "string" || options?.kind !== "string") return undefined;
  if (pattern.text.includes("\0") || options.text.includes("\0")) return undefined;
  return { kind: "regex", pattern: pattern.text, options: options.text };
}

function readCode([[, code] = NOTHING, scope, ...rest]: readonly Entry[]): Value | undefined {
  if (code.kind !== "string" || rest.length > 0) return undefined;
  if (scope === undefined) return { kind: "code", text: code.text, scope: undefined };
  return scope[0] === "$scope" && scope[1].kind === "document"
    ? { kind: "code", text: code.text, scope: scope[1] }
    : undefined;
}

/** The values of a document of exactly these two keys, in either order. */
function twoFields(value: Value, one: string, other: string): readonly [Value, Value] | readonly [] {
  if (value.kind !== "document") return [];
  const [first, second, ...rest] = value.entries;
  if (first === undefined || second === undefined || rest.length > 0) return [];
  if (first[0] === one && second[0] === other) return [first[1], second[1]];
  return first[0] === other && second[0] === one ? [second[1], first[1]] : [];
}

function readInteger(text: string, bits: 32 | 64): bigint | undefined {
  if (!/^[-+]?[0-9]{1,40}$/.test(text)) return undefined;
  const value = BigInt(text.replace(/^\+/, ""));
  return BigInt.asIntN(bits, value) === value ? value : undefined;
}

function readDouble(text: string): number | undefined {
  if (/^nan$/i.test(text)) return Number.NaN;
  if (/^[-+]?inf(inity)?$/i.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
  if (!/^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$/.test(text)) return undefined;
  const value = Number(text);
  return Number.isFinite(value) ? value : undefined;
}

/** Whether a text is a decimal128 without rounding: 34 digits, and exponents that IEEE 754-2008 has room for. */
function isDecimal128(text: string): boolean {
  if (/^[-+]?(nan|inf|infinity)$/i.test(text)) return true;
  const [, whole = "", fraction = "", exponent = "0"] =
    /^[-+]?([0-9]*)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]{1,9}))?$/.exec(text) ?? [];
  if (whole + fraction === "") return false;
  const written = (whole + fraction).replace(/^0+/, "");
  if (written === "") return true;
  const digits = written.replace(/0+$/, "");
  const lowest = Number(exponent) - fraction.length + written.length - digits.length;
  // Zeros may be added at the end up to 34 digits, for an exponent that is too high by itself.
  return digits.length <= 34 && lowest >= -6_176 && lowest + digits.length - 1 <= 6_144;
}
