import type { RunnerError } from "../error.ts";

/**
 * What each exit code means, for help and completion of scripts. Which failure gives which code is in `error.ts`.
 */
export const exitCodes = {
  0: "done, or nothing to do",
  1: "a defect of lockkeeper",
  2: "wrong usage or configuration",
  10: "migrations are pending (only with --exit-code)",
  20: "refused: signature, trust, expiry, checksum, order, changed file or plan, no down file, pause, audit log",
  21: "a migration failed; what it did in its transaction was rolled back",
  22: "a person is needed: nobody can tell whether a statement took effect; or, for init, the database was rolled back on purpose",
  23: "the caller is not allowed to",
  30: "another run holds the lease",
  31: "the database, the bucket or the server cannot be used",
  32: "canceled or past its deadline; run it again to go on",
  130: "stopped by SIGINT; run it again to go on",
  143: "stopped by SIGTERM; run it again to go on",
} as const;

/** Exit codes that shells expect of a program that a signal ended. */
export const signalExits = { SIGINT: 130, SIGTERM: 143 } as const;

/** The worst first: what needs a person; then what another try may mend, and what was stopped before what was merely busy. */
const byWeight: readonly number[] = [1, 22, 21, 20, 2, 23, 31, 143, 130, 32, 30, 0];

/** Below 0 where exit code `a` is worse than `b`; one that nobody knows is the worst. */
export function compareExits(a: number, b: number): number {
  return byWeight.indexOf(a) - byWeight.indexOf(b);
}

/** The exit code for a failure. */
export function exitOf(error: RunnerError): number {
  const { signal } = error.fields;
  return signal === "SIGINT" || signal === "SIGTERM" ? signalExits[signal] : error.exit;
}

/** The meaning of a code, for a line of help. */
export function meaningOf(code: number): string {
  const entry = Object.entries(exitCodes).find(([key]) => Number(key) === code);
  return entry?.[1] ?? "";
}
