import type { TransactionStep } from "../session.ts";
import type { Bench } from "./bench.ts";
import type { NewEntry } from "./history.ts";

/** The entries of the migrations that a checkpoint stands for; they are added with its own. */
export function coveredEntries(
  { covers, signed }: Pick<TransactionStep, "covers" | "signed">,
  bench: Bench,
  appliedBy: string,
): readonly NewEntry[] {
  const { runId, token } = bench.key();
  return covers.map(({ seq, version, path, sha256, size, chain }) => ({
    seq,
    version,
    path,
    sha256,
    size,
    chain,
    signed,
    runId,
    token,
    appliedBy,
    direction: "up",
    origin: "covered",
    status: "done",
    statementsDone: 1,
    statements: 1,
    statementChecksums: [],
    checkpoint: null,
    note: null,
    error: null,
    startedAt: bench.now(),
    durationMs: 0,
  }));
}
