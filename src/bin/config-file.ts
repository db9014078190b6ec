import { readFile, stat } from "node:fs/promises";
import * as v from "valibot";
import { LineCounter, isMap, isNode, isPair, isScalar, parseDocument } from "yaml";
import type { Document, Node } from "yaml";
import { RunnerError } from "../error.ts";
import { nearest } from "../cli/nearest.ts";
import { redactText } from "../report/redact.ts";
import { referenceProblems } from "./config-references.ts";
import { configSchema } from "./config-schema.ts";
import type { ConfigText } from "./config-schema.ts";

/** Bytes; a thousand targets take a tenth of it. */
const maxConfigBytes = 4 * 1024 * 1024;

/** One thing that is wrong with a configuration file. */
export interface ConfigProblem {
  /** from 1 */
  readonly line: number;
  /** from 1 */
  readonly column: number;
  /** `targets.orders-prod.limits.wait`; empty for the file as a whole */
  readonly path: string;
  readonly message: string;
}

/**
 * Reads a configuration file.
 *
 * @throws RunnerError `CONFIG` when it cannot be read, and with every problem at once when it is not right
 */
export async function readConfigFile(file: string): Promise<ConfigText> {
  let text: string;
  try {
    const { size } = await stat(file);
    if (size > maxConfigBytes)
      throw new RunnerError("CONFIG", `${file} has more than ${maxConfigBytes} bytes`);
    text = await readFile(file, "utf8");
  } catch (cause) {
    if (cause instanceof RunnerError) throw cause;
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
    throw new RunnerError("CONFIG", `${file} cannot be read (${code})`, {
      hint: "name the configuration with --config",
      cause,
    });
  }
  const parsed = parseConfig(text);
  if (parsed.kind === "config") return parsed.config;
  throw configError(file, parsed.problems);
}

/** Text → configuration, or all its problems in the order of their lines. */
export function parseConfig(
  text: string,
):
  | { readonly kind: "config"; readonly config: ConfigText }
  | { readonly kind: "problems"; readonly problems: readonly ConfigProblem[] } {
  const lines = new LineCounter();
  const document = documentOf(text, lines);
  if (document === undefined)
    return { kind: "problems", problems: [{ line: 1, column: 1, path: "", message: "nested too deep" }] };
  if (document.errors.length > 0) {
    return {
      kind: "problems",
      problems: document.errors.map((error) => ({
        ...place(lines, error.pos[0]),
        path: "",
        message: firstLine(error.message),
      })),
    };
  }
  const whole = contentOf(document);
  if (typeof whole === "string")
    return { kind: "problems", problems: [{ line: 1, column: 1, path: "", message: whole }] };
  const result = v.safeParse(configSchema, whole.value);
  const problems = result.success
    ? referenceProblems(result.output).map(({ keys, message }) => ({
        ...placeOfNode(document, lines, keys),
        path: keys.join("."),
        message,
      }))
    : result.issues.flatMap((issue) => problemsOf(issue, document, lines));
  if (result.success && problems.length === 0) return { kind: "config", config: result.output };
  return { kind: "problems", problems: problems.toSorted((a, b) => a.line - b.line || a.column - b.column) };
}

/** All problems as one error: one is told in the message, several stand under it, one a line. */
function configError(file: string, problems: readonly ConfigProblem[]): RunnerError {
  const told = problems.map(
    ({ line, column, path, message }) =>
      `${file}:${line}:${column} ${path === "" ? "" : `${path}: `}${message}`,
  );
  const first = problems[0];
  return new RunnerError(
    "CONFIG",
    told.length === 1
      ? (told[0] ?? "")
      : `${file} has ${told.length} problems\n${told.map((line) => `  ${line}`).join("\n")}`,
    {
      hint: "editors check this file with infra/config.schema.json",
      fields: { file, problems: problems.length, line: first?.line ?? 1, column: first?.column ?? 1 },
    },
  );
}

/** Undefined where the text is nested so deep that the library has no stack left for it. */
function documentOf(text: string, lineCounter: LineCounter): Document | undefined {
  try {
    // the library would print what it warns of with a piece of the file, and that may be a password
    return parseDocument(text, { lineCounter, prettyErrors: false, version: "1.2", logLevel: "error" });
  } catch (error) {
    if (error instanceof RangeError) return undefined;
    throw error;
  }
}

/** Aliases that multiply without end are refused by the library; that is a problem of the file like any other. */
function contentOf(document: Document): { readonly value: unknown } | string {
  try {
    const value: unknown = document.toJS({ maxAliasCount: 100 });
    // a list is an object to the schema, one in which every key is missing
    return Array.isArray(value) ? "expected a mapping, got a list" : { value };
  } catch (error) {
    return error instanceof Error ? firstLine(error.message) : "cannot be read";
  }
}

type Issue = v.BaseIssue<unknown>;

function problemsOf(issue: Issue, document: Document, lines: LineCounter): readonly ConfigProblem[] {
  const keys = (issue.path ?? []).map(({ key }) => key);
  const path = keys.map(String).join(".");
  const isUnknownKey = issue.type === "strict_object" && issue.expected === "never";
  if (isUnknownKey) {
    const last = String(keys.at(-1));
    const known = knownKeys(keys.slice(0, -1));
    const meant = nearest(last, known);
    const hint = meant === undefined ? `known are ${known.join(", ")}` : `did you mean ${meant}?`;
    return [{ ...placeOfKey(document, lines, keys), path, message: `unknown key; ${hint}` }];
  }
  const isMissing = issue.input === undefined;
  if (isMissing) return [{ ...placeOfNode(document, lines, keys.slice(0, -1)), path, message: "missing" }];
  const badName = issue.path?.at(-1)?.origin === "key";
  const where = badName ? placeOfKey(document, lines, keys) : placeOfNode(document, lines, keys);
  return [
    { ...where, path, message: `${wordsOf(issue)}, got ${shown(badName ? keys.at(-1) : issue.input, keys)}` },
  ];
}

/** Our own schemas say "expected …"; those of other rooms speak valibot's language. */
function wordsOf(issue: Issue): string {
  if (issue.message.startsWith("expected ")) return issue.message;
  if (!issue.message.startsWith("Invalid ")) return `expected ${issue.message}`;
  const expected = issue.expected ?? "something else";
  return `expected ${expected === "Object" ? "a mapping" : expected === "Array" ? "a list" : expected.replace(/^"(\w+)"$/, "$1")}`;
}

/** What stood there; a value that may be a secret only by its kind. */
function shown(value: unknown, keys: readonly unknown[]): string {
  if (Array.isArray(value)) return "a list";
  if (value !== null && typeof value === "object")
    return Object.keys(value).length === 0 ? "nothing in it" : `keys ${Object.keys(value).join(", ")}`;
  if (keys.includes("database") && typeof value === "string") return "another text";
  const text = redactText(JSON.stringify(value) ?? "nothing");
  return text.length <= 80 ? text : `${text.slice(0, 77)}…`;
}

/** Keys that the schema has at a place; names of targets and trusts are anybody's. */
function knownKeys(keys: readonly unknown[]): readonly string[] {
  let at: unknown = configSchema;
  for (const key of keys) {
    at = innermost(at);
    if (hasEntries(at)) at = at.entries[String(key)];
    else if (isRecordSchema(at)) at = at.value;
  }
  at = innermost(at);
  return hasEntries(at) ? Object.keys(at.entries) : [];
}

/** Through `optional` and `pipe` to the schema inside. */
function innermost(schema: unknown): unknown {
  if (schema === null || typeof schema !== "object") return schema;
  if ("wrapped" in schema) return innermost(schema.wrapped);
  if ("pipe" in schema && Array.isArray(schema.pipe) && schema.pipe[0] !== schema) {
    // a map is checked before it is taken as a record
    const steps: readonly unknown[] = schema.pipe;
    return innermost(isUnknownSchema(steps[0]) ? steps.at(-1) : steps[0]);
  }
  return schema;
}

function isUnknownSchema(schema: unknown): boolean {
  return schema !== null && typeof schema === "object" && "type" in schema && schema.type === "unknown";
}

function hasEntries(schema: unknown): schema is { readonly entries: Readonly<Record<string, unknown>> } {
  return schema !== null && typeof schema === "object" && "entries" in schema;
}

function isRecordSchema(schema: unknown): schema is { readonly value: unknown } {
  return (
    schema !== null &&
    typeof schema === "object" &&
    "type" in schema &&
    schema.type === "record" &&
    "value" in schema
  );
}

function placeOfNode(
  document: Document,
  lines: LineCounter,
  keys: readonly unknown[],
): { readonly line: number; readonly column: number } {
  for (let length = keys.length; length >= 0; length--) {
    const node: unknown = length === 0 ? document.contents : document.getIn(keys.slice(0, length), true);
    if (isNode(node) && node.range) return place(lines, node.range[0]);
  }
  return { line: 1, column: 1 };
}

function placeOfKey(
  document: Document,
  lines: LineCounter,
  keys: readonly unknown[],
): { readonly line: number; readonly column: number } {
  const parent: unknown = keys.length === 1 ? document.contents : document.getIn(keys.slice(0, -1), true);
  if (isMap(parent)) {
    const pair = parent.items.find(
      (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(keys.at(-1)),
    );
    const key: unknown = pair?.key;
    if (isKeyNode(key) && key.range) return place(lines, key.range[0]);
  }
  return placeOfNode(document, lines, keys);
}

function isKeyNode(node: unknown): node is Node {
  return isNode(node);
}

function place(lines: LineCounter, offset: number): { readonly line: number; readonly column: number } {
  const { line, col } = lines.linePos(offset);
  return { line, column: col };
}

function firstLine(text: string): string {
  return text.split("\n")[0] ?? text;
}
