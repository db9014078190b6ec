import { describe, expect, test } from "vitest";

import { appliedEntries } from "../../src/history/applied.ts";
import { appliedLength, type HistoryEntry } from "../../src/history/entry.ts";

function entry(
  seq: number,
  direction: "up" | "down",
  status: HistoryEntry["status"],
  id: number,
): HistoryEntry {
  const rest = {
    version: String(seq),
    path: "",
    sha256: "",
    size: 0,
    chain: "",
    origin: "run",
    statementsDone: 1,
    statements: 1,
  } as const;
  const who = {
    statementChecksums: [],
    signed: false,
    runId: "",
    token: 1,
    startedAt: new Date(0),
    durationMs: 0,
    appliedBy: "",
    checkpoint: null,
    note: null,
    error: null,
  };
  return { id, seq, direction, status, ...rest, ...who };
}

describe("what is applied after a history", () => {
  test.for([
    ["nothing", [], []],
    ["ups", ["up 1 done", "up 2 done"], [1, 2]],
    ["a failed up", ["up 1 done", "up 2 failed"], [1]],
    ["one that failed and then succeeded", ["up 1 failed", "up 1 done"], [1]],
    ["a down", ["up 1 done", "up 2 done", "down 2 done"], [1]],
    ["a failed down", ["up 1 done", "up 2 done", "down 2 failed"], [1, 2]],
    ["down and up again", ["up 1 done", "up 2 done", "down 2 done", "down 1 done", "up 1 done"], [1]],
    ["one that is under way", ["up 1 done", "up 2 started"], [1]],
    ["one that needs attention", ["up 1 done", "up 2 needs_attention"], [1]],
    ["a down that needs attention", ["up 1 done", "down 1 needs_attention"], [1]],
    ["half of one that is being taken back", ["up 1 done", "up 2 failed", "down 2 started"], [1]],
    [
      "half of one that had been whole once",
      ["up 1 done", "down 1 done", "up 1 failed", "down 1 started"],
      [],
    ],
  ] as const)("of %s", ([, lines, expected]) => {
    const entries = lines.map((line, index) => {
      const [direction, seq, status] = line.split(" ") as ["up" | "down", string, HistoryEntry["status"]];
      return entry(Number(seq), direction, status, index + 1);
    });
    expect(appliedEntries(entries).map(({ seq }) => seq)).toEqual(expected);
    const last = entries.at(-1);
    const wasApplied =
      entries.findLast(({ direction, seq }) => direction === "up" && seq === last?.seq)?.status === "done";
    expect(appliedLength(last, wasApplied)).toBe(expected.length);
  });
});
