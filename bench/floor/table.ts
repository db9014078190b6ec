import type { Line } from "../result.ts";
import { markdown, spread } from "../table.ts";
import type { FloorLine } from "./result.ts";

const titles: Readonly<Record<FloorLine["what"], string>> = {
  node: "a process of Node that does nothing: `node -e 0`",
  connect: "a process that connects by `pg`, asks `SELECT 1`, and ends",
  ask: "a process that does that and, at the same time, one signed GET",
  "ask far": "the same with 20 ms to the bucket and 5 ms to the database",
  tables:
    "1,000 tables made, each in a transaction of its own, as four messages on a connection that is kept; the disk is waited for at the last of each",
  get: "one signed GET from the bucket, on a connection that is kept",
  query: "one query, on a connection that is kept",
  commit: "one insert, committed and on the disk, on a connection that is kept",
};

/** Its section: what the others are held against where a number cannot be reached. */
export function floorTables(lines: readonly Line[]): string {
  const bare = lines.filter((line) => line.kind === "floor-bare");
  const kinds = [...new Set(bare.map(({ what }) => what))];
  return [
    "Without lockkeeper, on loopback: what nothing can be faster than that does the same on this machine.",
    markdown(
      ["", "median (fastest to slowest)"],
      kinds.map((kind) => [
        titles[kind],
        spread(
          bare.filter(({ what }) => what === kind).map(({ ms }) => ms),
          (ms) => `${ms.toFixed(ms < 10 ? 2 : 0)} ms`,
        ),
      ]),
    ),
  ].join("\n\n");
}
