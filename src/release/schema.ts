import * as v from "valibot";

import { RunnerError } from "../error.ts";
import type { RunnerErrorCode } from "../error.ts";
import { releaseLimits } from "./limits.ts";

/**
 * `value` as `schema` describes it.
 *
 * @throws RunnerError `code`, or `JSON_NUMBER` where something else stands for a number; names the field, never its value
 */
export function check<S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  what: string,
  code: RunnerErrorCode = "SCHEMA",
): v.InferOutput<S> {
  const result = v.safeParse(schema, value, { abortEarly: true, abortPipeEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  const field = shown(v.getDotPath(issue));
  const isNumber = issue.kind === "schema" && issue.expected === "number" && issue.received !== "undefined";
  const problem = isUnknownField(issue) ? "is not a field of this format" : `must be ${describe(issue)}`;
  throw new RunnerError(
    isNumber ? "JSON_NUMBER" : code,
    `${what}: ${field === null ? "it" : `"${field}"`} ${problem}`,
    {
      fields: { field },
    },
  );
}

/** Lower-case hex sha256. */
export const sha256Text = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/, "64 lower-case hex digits"));

/** `sha256:<hex>`. */
export const digestText = v.pipe(
  v.string(),
  v.regex(/^sha256:[0-9a-f]{64}$/, "sha256: and 64 lower-case hex digits"),
);

/** A stream, environment or engine name. No separator of paths, text or shells, so it cannot act on anything. */
export const nameText = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, "a name of letters, digits, '.', '_' and '-'"),
  v.maxLength(releaseLimits.nameLength, `a name of at most ${releaseLimits.nameLength} characters`),
);

/** An object as a map. Names that a record would pass over in silence, such as `__proto__`, are refused. */
export function mapOf<K extends v.GenericSchema<string, string>, S extends v.GenericSchema>(
  name: K,
  value: S,
) {
  return v.pipe(v.unknown(), v.check(hasPlainNames, "an object with plain names"), v.record(name, value));
}

/** Whole seconds in UTC, one spelling a moment. */
export const timeText = v.pipe(
  v.string(),
  v.regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/, "a time like 2026-11-20T10:00:00Z"),
  v.check((text) => isMoment(text), "a time that exists"),
);

/** As {@link timeText} has it; parts of a second are cut off. */
export function formatTime(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}

/** A count from `min` up; strict JSON has let through safe integers only. */
export function count(min: number, max: number = Number.MAX_SAFE_INTEGER) {
  return v.pipe(
    v.number(),
    v.integer("a whole number"),
    v.minValue(min, `at least ${min}`),
    v.maxValue(max, `at most ${max}`),
  );
}

const passedOver: ReadonlySet<string> = new Set(["__proto__", "prototype", "constructor"]);

function hasPlainNames(value: unknown): boolean {
  return (
    value === null ||
    typeof value !== "object" ||
    !Object.getOwnPropertyNames(value).some((name) => passedOver.has(name))
  );
}

function isMoment(text: string): boolean {
  const date = new Date(text);
  return !Number.isNaN(date.getTime()) && formatTime(date) === text;
}

/** A name that stands in the text is anybody's: it may not begin a line of its own, nor be longer than one. */
function shown(field: string | null): string | null {
  return field === null ? null : field.slice(0, 120).replace(/\s/g, " ");
}

function isUnknownField(issue: v.BaseIssue<unknown>): boolean {
  return issue.kind === "schema" && issue.type === "strict_object" && issue.expected === "never";
}

function describe(issue: v.BaseIssue<unknown>): string {
  if (issue.kind === "validation") return issue.message;
  return issue.received === "undefined" ? "present" : (issue.expected ?? "of another form");
}
