import type { RunnerError } from "../error.ts";
import { redactText } from "../report/redact.ts";
import { exitOf } from "./exit-code.ts";
import type { Output } from "./output.ts";

/** Shows an error: on stderr for a person, as the one document on stdout with `--output json`. */
export function showFailure(error: RunnerError, output: Output): void {
  if (output.isJson) {
    if (!output.hasResult) output.result({ error: describeFailure(error) }, () => "");
    return;
  }
  output.stderr.write(`${formatFailure(error, output)}\n`);
}

/** An error as programs read it. */
export function describeFailure(error: RunnerError, exit = exitOf(error)): Record<string, unknown> {
  return {
    code: error.code,
    message: redactText(error.message),
    hint: error.hint === undefined ? null : redactText(error.hint),
    retryable: error.retryable,
    exitCode: exit,
    fields: Object.fromEntries(
      Object.entries(error.fields).map(([name, value]) => [
        name,
        typeof value === "string" ? redactText(value) : value,
      ]),
    ),
  };
}

/** An error as a person reads it: what, where, the state of the database if it is known, what to do next, the code. */
export function formatFailure(error: RunnerError, output: Output, state?: string): string {
  const paint = output.paint.err;
  const lines = [`${paint.bad("error:")} ${redactText(error.message)}`];
  const where = whereOf(error);
  // most messages say it already
  if (where !== undefined && !error.message.includes(where))
    lines.push(`  ${paint.dim("where:")}    ${where}`);
  const detail = serverWords(error);
  for (const [name, words] of detail) lines.push(`  ${paint.dim(`${name}:`.padEnd(9))} ${redactText(words)}`);
  if (state !== undefined) lines.push(`  ${paint.dim("database:")} ${state}`);
  if (error.hint !== undefined) lines.push(`  ${paint.dim("next:")}     ${redactText(error.hint)}`);
  lines.push(`  ${paint.dim("code:")}     ${error.code}`);
  if (output.isVerbose)
    lines.push(...causesOf(error).map((cause) => `  ${paint.dim("cause:")}    ${redactText(cause)}`));
  return lines.join("\n");
}

/** `000002_orders.up.sql:3:12`, as editors take it; undefined where it is about no migration. */
export function whereOf(error: RunnerError): string | undefined {
  const { migration, line, column } = error.fields;
  if (typeof migration !== "string") return undefined;
  if (typeof line !== "number") return migration;
  return typeof column === "number" ? `${migration}:${line}:${column}` : `${migration}:${line}`;
}

/** What the database server said beside its message. */
function serverWords(error: RunnerError): readonly (readonly [string, string])[] {
  const words: [string, string][] = [];
  for (const name of ["sqlstate", "schema", "table", "constraint"]) {
    const value = error.fields[name];
    if (typeof value === "string" && value !== "" && !error.message.includes(value))
      words.push([name, value]);
  }
  return words;
}

/** Only with `--verbose`: the chain of causes, our own defects with their stack. */
function causesOf(error: RunnerError): readonly string[] {
  const causes: string[] = [];
  let cause: unknown = error.cause;
  while (cause instanceof Error && causes.length < 8) {
    if (isOfDatabase(cause)) causes.push(`${cause.name} ${"code" in cause ? String(cause.code) : ""}`.trim());
    else
      causes.push(
        error.code === "INTERNAL" ? (cause.stack ?? cause.message) : `${cause.name}: ${cause.message}`,
      );
    cause = cause.cause;
  }
  return causes;
}

/** What a database server says quotes rows and statements; what of it may be shown is in our own message already. */
function isOfDatabase(cause: Error): boolean {
  return "severity" in cause || cause.name.startsWith("Mongo");
}
