import { RunnerError } from "../error.ts";
import type { SourcePlace } from "../migration/code.ts";
import type { FunctionStep } from "./session.ts";

/** characters of a program's own words that are kept */
const maxWords = 500;

/** Nobody waits for a program that does not listen to the signal. */
export function unlessAborted(running: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    running.finally(() => signal.removeEventListener("abort", onAbort)).then(resolve, reject);
  });
}

/** What is told of a failure, wherever it was. */
export type FailureWords = Pick<RunnerError, "code" | "message" | "hint" | "fields" | "cause">;

/** What a program threw, in its own words. */
export function programWords(thrown: unknown): FailureWords {
  return {
    code: "MIGRATION_FAILED",
    message: `${wordsOf(thrown)}; nothing of this migration was applied`,
    hint: "correct the migration, publish it and run again",
    fields: {},
    cause: thrown,
  };
}

/** A failure of a program, with the line of its source where that is known. */
export function failureAt(
  { path, migration, direction }: FunctionStep,
  place: SourcePlace | undefined,
  { code, message, hint, fields, cause }: FailureWords,
): RunnerError {
  const where = place === undefined ? path : `${place.file}:${place.line}:${place.column}`;
  return new RunnerError(code, `${where}: ${message}`, {
    ...(hint === undefined ? {} : { hint }),
    fields: {
      ...fields,
      migration: path,
      version: migration.version,
      direction,
      ...(place === undefined ? {} : { file: place.file, line: place.line, column: place.column }),
    },
    cause,
  });
}

/** One line, and no password of a URL: what a program says may hold anything. */
function wordsOf(thrown: unknown): string {
  const said = thrown instanceof Error ? thrown.message : String(thrown);
  const line = said.split("\n")[0] ?? "";
  const clean = line.replace(/\/\/[^\s/@]+@/g, "//…@").slice(0, maxWords);
  return clean === "" ? "it failed without a word" : clean;
}
