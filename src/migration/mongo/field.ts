import type { Entry, Value } from "./value.ts";

/** Value of a key of a document; the last one where it stands there several times, undefined where never or elsewhere. */
export function fieldOf(value: Value | undefined, key: string): Value | undefined {
  return entriesOf(value).findLast(([name]) => name === key)?.[1];
}

/** Fields of a document; none of any other value. */
export function entriesOf(value: Value | undefined): readonly Entry[] {
  return value?.kind === "document" ? value.entries : [];
}

/** Items of an array; none of any other value. */
export function itemsOf(value: Value | undefined): readonly Value[] {
  return value?.kind === "array" ? value.items : [];
}

/** Text of a string; undefined of any other value. */
export function textOf(value: Value | undefined): string | undefined {
  return value?.kind === "string" ? value.text : undefined;
}

/** Number of an int32, a double or an int64 within the safe range; undefined of any other value. */
export function numberOf(value: Value | undefined): number | undefined {
  if (value?.kind === "int32" || value?.kind === "double") return value.value;
  return value?.kind === "int64" && Number.isSafeInteger(Number(value.value))
    ? Number(value.value)
    : undefined;
}

/** Whether a value is what MongoDB takes for true: `true`, or a number other than 0. */
export function isTrue(value: Value | undefined): boolean {
  if (value?.kind === "boolean") return value.value;
  const number = numberOf(value);
  return number !== undefined && number !== 0;
}
