import type { ClientSession } from "mongodb";

import type { RunnerError } from "../../error.ts";
import type { FunctionStep, SessionSettings, StatementStep, TransactionStep } from "../session.ts";
import type { Bench } from "./bench.ts";
import { toEntryError } from "./body-failure.ts";
import { coveredEntries } from "./covered.ts";
import { writeBack } from "./foreign/write-back.ts";
import { entryOfStep } from "./history.ts";
import { checksumOf } from "./statement-task.ts";

/** A body that is one transaction, done or not. */
export interface WholeBody {
  readonly bench: Bench;
  readonly step: TransactionStep | StatementStep | FunctionStep;
  readonly settings: SessionSettings;
}

/**
 * The last act of its transaction: its entry, those of what it covers, and what is kept in step.
 *
 * @param startedAt - `performance.now()` before its first act
 */
export async function addDone(
  { bench, step, settings }: WholeBody,
  session: ClientSession,
  startedAt: number,
): Promise<{ readonly durationMs: number }> {
  const durationMs = performance.now() - startedAt;
  const statements = "statements" in step ? step.statements : [];
  const done = entryOfStep(step, bench.key(), settings.appliedBy, {
    status: "done",
    statementsDone: countOf(step),
    statements: countOf(step),
    statementChecksums: "bytes" in step ? statements.map((each) => checksumOf(step, each)) : [],
    checkpoint: null,
    error: null,
    startedAt: new Date(bench.now().getTime() - durationMs),
    durationMs,
  });
  await bench.addEntries(session, [...coveredEntries(step, bench, settings.appliedBy), done]);
  await writeBack(bench, step, session);
  return { durationMs };
}

/** The entry of a body of which nothing is there; gives the failure back. */
export async function addFailed(
  { bench, step, settings }: WholeBody,
  failure: RunnerError,
): Promise<RunnerError> {
  const entry = entryOfStep(step, bench.key(), settings.appliedBy, {
    status: "failed",
    statementsDone: 0,
    statements: countOf(step),
    statementChecksums: [],
    checkpoint: null,
    error: toEntryError(failure),
    startedAt: bench.now(),
    durationMs: 0,
  });
  await bench.write((session) => bench.addEntries(session, [entry]));
  return failure;
}

/** A body in one transaction counts as one statement, unless its release lists several. */
function countOf(step: WholeBody["step"]): number {
  return "statements" in step ? step.statements.length : 1;
}
