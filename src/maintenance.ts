import type { DeclaredEntry } from "./driver/session.ts";
import { RunnerError } from "./error.ts";
import type { HistoryEntry } from "./history/entry.ts";
import { migrationsUpTo } from "./plan/make-plan.ts";
import { fetchRelease } from "./run/fetch-release.ts";
import { declareUnderLease, type Declaration } from "./run/declare.ts";
import type { RunOptions } from "./run/request.ts";
import type { Target } from "./run/target.ts";
import { assertUsable } from "./run/usable.ts";

/** What a person found out about the statement that needed attention. */
export type RepairDecision = "applied" | "not-applied";

/**
 * Declares all migrations up to `version` as already applied, without running them: how a database that existed
 * before comes under our care.
 *
 * @returns how many were declared
 * @throws RunnerError `HISTORY_NOT_EMPTY` - something was applied or declared already
 */
export async function baseline(
  version: string,
  declaration: Declaration,
  target: Target,
  options: RunOptions,
): Promise<{ readonly declared: number }> {
  const before = await target.driver.state(target.stream, options.signal);
  const wanted = { expected: undefined, now: options.now(), applied: async () => [] };
  const release = await fetchRelease(target, before, wanted, options.signal);
  const as = { action: "baseline", goal: `version ${version}` } as const;
  return declareUnderLease(as, declaration, target, options, async (session, declare) => {
    const state = await session.state();
    assertUsable(release, state, target);
    if (state.position.length > 0 || state.unfinished !== null) {
      throw new RunnerError(
        "HISTORY_NOT_EMPTY",
        `the history already stands at version "${state.position.version ?? "none"}"`,
        {
          hint: "a baseline is for a database without history; look at it with history",
        },
      );
    }
    const entries = migrationsUpTo(release, version).map((migration): DeclaredEntry => ({
      migration,
      direction: "up",
      origin: "baseline",
      status: "done",
      statementsDone: 1,
      statements: 1,
      statementChecksums: [],
      signed: release.kind === "signed",
      note: declaration.reason,
      appliedBy: declaration.caller.subject,
    }));
    await declare(entries);
    return { declared: entries.length };
  });
}

/**
 * Records a person's decision about the one statement whose outcome nobody could know, so that the next run goes on
 * after it, or runs it again.
 *
 * @throws RunnerError `NOTHING_TO_REPAIR` - the newest entry needs no decision
 */
export async function repair(
  decision: RepairDecision,
  declaration: Declaration,
  target: Target,
  options: RunOptions,
): Promise<HistoryEntry> {
  const as = { action: "repair", goal: decision } as const;
  return declareUnderLease(as, declaration, target, options, async (session, declare) => {
    const { unfinished } = await session.state();
    if (unfinished === null || unfinished.status === "failed") {
      throw new RunnerError("NOTHING_TO_REPAIR", "no migration needs a decision", {
        hint:
          unfinished === null
            ? "run up as usual"
            : "the outcome of the failed migration is known: correct it and run up again",
      });
    }
    await declare([decided(unfinished, decision, declaration)]);
    return unfinished;
  });
}

function decided(entry: HistoryEntry, decision: RepairDecision, declaration: Declaration): DeclaredEntry {
  const isApplied = decision === "applied";
  const statementsDone = entry.statementsDone + (isApplied ? 1 : 0);
  const checksum = entry.checkpoint?.sha256;
  return {
    migration: entry,
    direction: entry.direction,
    origin: "repair",
    status: statementsDone === entry.statements ? "done" : "failed",
    statementsDone,
    statements: entry.statements,
    statementChecksums:
      isApplied && checksum !== undefined
        ? [...entry.statementChecksums, checksum]
        : entry.statementChecksums,
    signed: entry.signed,
    note: `${decision}: ${declaration.reason}`,
    appliedBy: declaration.caller.subject,
  };
}
