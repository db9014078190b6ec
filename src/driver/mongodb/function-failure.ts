import { MongoNetworkError, MongoServerSelectionError } from "mongodb";

import { RunnerError } from "../../error.ts";
import { failureAt, programWords, type FailureWords } from "../program.ts";
import type { FunctionStep } from "../session.ts";
import { serverWords } from "./body-failure.ts";
import { commandError, errorCode } from "./command-error.ts";

/** What the server or the network said, which a program may have passed on or wrapped; undefined where it is the program's own. */
export function serverCauseOf(thrown: unknown): unknown {
  for (let error = thrown; error instanceof Error; error = error.cause)
    if (commandError(error) !== undefined || isLoss(error)) return error;
  return undefined;
}

/** What a program's failure is to a person: the line of its source, and what was said, without documents. */
export function functionFailure(step: FunctionStep, thrown: unknown): RunnerError {
  const place = step.locate(stacksOf(thrown));
  if (thrown instanceof RunnerError) return failureAt(step, place, thrown);
  const told = serverCauseOf(thrown);
  if (told === undefined) return failureAt(step, place, programWords(thrown));
  return failureAt(step, place, withHint(serverWords(told), commandError(told)?.code));
}

/** The network's failures; what else the driver throws by itself is about how it was called. */
function isLoss(error: Error): boolean {
  return error instanceof MongoNetworkError || error instanceof MongoServerSelectionError;
}

/** The outermost first: what a program wraps, it throws in a line of its own. */
function stacksOf(thrown: unknown): string {
  const stacks: string[] = [];
  for (let error = thrown; error instanceof Error; error = error.cause) stacks.push(error.stack ?? "");
  return stacks.join("\n");
}

/** What commands may do about it, a program may not. */
function withHint(words: FailureWords, code: number | undefined): FailureWords {
  const hint = code === undefined ? undefined : hints.get(code);
  return hint === undefined ? words : { ...words, hint };
}

const tooMuch =
  "a transaction must not be so long or so large: do less in one migration, or write it as commands with a backfill";

const hints: ReadonlyMap<number, string> = new Map([
  [
    errorCode.noSuchTransaction,
    "an error of the server ends the whole transaction, also where the program catches it: ask before you write; or it took longer than the server lets a transaction be, mostly a minute",
  ],
  [errorCode.transactionExceededLifetime, tooMuch],
  [errorCode.transactionTooLarge, tooMuch],
  [errorCode.transactionTooLargeForCache, tooMuch],
  [
    errorCode.operationNotSupportedInTransaction,
    "no transaction takes this: write it as a migration of commands, .json",
  ],
]);
