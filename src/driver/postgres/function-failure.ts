import { RunnerError } from "../../error.ts";
import { failureAt, programWords } from "../program.ts";
import type { FunctionStep } from "../session.ts";
import { serverFailure } from "./body-failure.ts";
import type { Blocker } from "./blocker.ts";
import { serverError } from "./failure.ts";
import { sqlstate } from "./sqlstate.ts";

/** A statement of a program that the server, or we, refused, and from where it was sent. */
export interface FailedStatement {
  readonly cause: unknown;
  readonly stack: string;
}

/** What ended an attempt: the program in its own words, or what the server, or we, said to a statement. */
export interface Origin {
  readonly kind: "program" | "statement";
  readonly cause: unknown;
  /** from where it was thrown, or the statement sent */
  readonly stack: string;
}

/**
 * Finds what ended an attempt. A program may pass on what the server said to it, wrap it, or catch it and go on in a
 * transaction that has failed.
 *
 * @param sent - the first statement that was refused
 * @param isThrown - by the program; else by what opened or closed the transaction
 */
export function originOf(cause: unknown, sent: FailedStatement | undefined, isThrown: boolean): Origin {
  if (sent !== undefined && (isAfterFailure(cause) || isMadeOf(cause, sent.cause)))
    return { kind: "statement", ...sent };
  const stack = cause instanceof Error ? (cause.stack ?? "") : "";
  return { kind: isThrown ? "program" : "statement", cause, stack };
}

/** What a program's failure is to a person: the line of its source, and what was said. */
export function functionFailure(
  step: FunctionStep,
  { kind, cause, stack }: Origin,
  blocker: Blocker | undefined,
): RunnerError {
  const place = step.locate(stack);
  if (cause instanceof RunnerError) return failureAt(step, place, cause);
  if (kind === "statement") return failureAt(step, place, { ...serverFailure(cause, blocker), cause });
  return failureAt(step, place, programWords(cause));
}

function isMadeOf(cause: unknown, origin: unknown): boolean {
  for (let error = cause; error !== undefined; error = error instanceof Error ? error.cause : undefined)
    if (error === origin) return true;
  return false;
}

/** 25P02, as every statement gets it after one that failed. */
function isAfterFailure(cause: unknown): boolean {
  return serverError(cause)?.sqlstate === sqlstate.failedTransaction;
}
