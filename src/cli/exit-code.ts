/**
 * What each exit code means, for help and completion of scripts. Which failure gives which code is in `error.ts`.
 */
export const exitCodes = {
  0: "done, or nothing to do",
  1: "a defect of lockkeeper",
  2: "wrong usage or configuration",
  10: "migrations are pending (only with --exit-code)",
  20: "refused: signature, checksum, order, changed file, database ahead, changed plan, no down file",
  21: "a migration failed; what it did in its transaction was rolled back",
  22: "a migration needs attention: nobody can tell whether a statement took effect",
  23: "the caller is not allowed to",
  30: "another run holds the lease",
  31: "the database, the bucket or the server cannot be used",
  32: "canceled or past its deadline; run it again to go on",
  130: "interrupted at once (second SIGINT)",
  143: "terminated at once (second SIGTERM)",
} as const;

/** The meaning of a code, for a line of help. */
export function meaningOf(code: number): string {
  const entry = Object.entries(exitCodes).find(([key]) => Number(key) === code);
  return entry?.[1] ?? "";
}
