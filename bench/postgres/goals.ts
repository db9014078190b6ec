import type { Goal } from "../goal.ts";
import type { Line } from "../result.ts";
import { duration, median, times } from "../table.ts";
import type { PostgresRun } from "./result.ts";
import type { ToolName } from "./tool.ts";

const release = "lockkeeper, signed release, S3";
const near = { bucketMs: 0, databaseMs: 0 };
const far = { bucketMs: 20, databaseMs: 5 };

/** What this scene measures of the numbers to reach; what a smaller run did not measure is left out. */
export function postgresGoals(lines: readonly Line[]): readonly Goal[] {
  const runs = lines.filter((line) => line.kind === "postgres-run");
  const traffic = lines.filter((line) => line.kind === "postgres-traffic");
  const canaries = lines.filter((line) => line.kind === "canary").filter(({ scene }) => scene === "postgres");

  const ms = (
    which: PostgresRun["case"],
    migrations: number,
    tool: ToolName,
    network: Pick<PostgresRun, "bucketMs" | "databaseMs"> = near,
  ): number | undefined => {
    const found = runs.filter(
      (run) =>
        run.case === which &&
        run.migrations === migrations &&
        run.tool === tool &&
        run.bucketMs === network.bucketMs &&
        run.databaseMs === network.databaseMs,
    );
    return found.length === 0 ? undefined : median(found.map((run) => run.ms));
  };
  const counted = (which: PostgresRun["case"], migrations: number) =>
    traffic.find((line) => line.case === which && line.migrations === migrations && line.tool === release);
  const bare = canaries.length === 0 ? undefined : median(canaries.map((canary) => canary.ms));
  const noopExchanges = counted("noop", 10_000);
  const pendingExchanges = counted("pending", 10_000);
  const freshExchanges = counted("fresh", 1_000);
  const limited = lines.filter((line) => line.kind === "postgres-limited");

  return [
    faster(
      "empty database, 1,000 migrations, against golang-migrate, both from S3",
      10,
      ms("fresh", 1_000, "golang-migrate, S3"),
      ms("fresh", 1_000, release),
    ),
    faster(
      "empty database, 1,000 migrations from S3, against goose from a folder",
      2,
      ms("fresh", 1_000, "goose, folder"),
      ms("fresh", 1_000, release),
    ),
    faster(
      "empty database, 1,000 migrations, 20 ms to the bucket and 5 ms to the database, against golang-migrate, both from S3",
      40,
      ms("fresh", 1_000, "golang-migrate, S3", far),
      ms("fresh", 1_000, release, far),
    ),
    atMost(
      "empty database, 10,000 migrations against 1,000, from S3",
      11,
      ms("fresh", 10_000, release),
      ms("fresh", 1_000, release),
    ),
    atMost(
      "nothing to do at 10,000 migrations against 10, from S3",
      1.2,
      ms("noop", 10_000, release),
      ms("noop", 10, release),
    ),
    faster(
      "nothing to do at 10,000 migrations, against golang-migrate, both from S3",
      4,
      ms("noop", 10_000, "golang-migrate, S3"),
      ms("noop", 10_000, release),
    ),
    atMost(
      "nothing to do, whole process on loopback, against `node -e 0`",
      2.5,
      ms("noop", 10, release),
      bare,
    ),
    atMost(
      "nothing to do, whole process, 20 ms to the bucket and 5 ms to the database, 10 migrations, against golang-migrate from S3",
      0.7,
      ms("noop", 10, release, far),
      ms("noop", 10, "golang-migrate, S3", far),
    ),
    requests(
      "requests to the bucket, nothing to do at 10,000 migrations",
      1,
      noopExchanges?.bucket?.exchanges,
    ),
    requests(
      "requests to the bucket, one more migration on top of 10,000",
      4,
      pendingExchanges?.bucket?.exchanges,
    ),
    requests(
      "requests to the bucket, empty database, 1,000 migrations in a pack",
      4,
      freshExchanges?.bucket?.exchanges,
    ),
    requests(
      "round trips to the database, nothing to do at 10,000 migrations, after connecting",
      1,
      noopExchanges?.database.exchanges,
    ),
    limited
      .filter(({ tool, migrations }) => tool === release && migrations === 10_000)
      .map(({ limitMb, cost }) => ({
        what: "peak memory, empty database, 10,000 migrations of 1 KiB from S3",
        target: `runs within ${limitMb} MiB`,
        measured: cost === null ? "failed" : `${cost.peakMb.toFixed(0)} MiB`,
        isReached: cost !== null,
      })),
  ].flat();
}

function faster(
  what: string,
  target: number,
  theirs: number | undefined,
  ours: number | undefined,
): readonly Goal[] {
  if (theirs === undefined || ours === undefined) return [];
  return [
    {
      what,
      target: `at least ${target} times as fast`,
      measured: `${times(theirs / ours)} (${duration(ours)} against ${duration(theirs)})`,
      isReached: theirs / ours >= target,
    },
  ];
}

function atMost(
  what: string,
  target: number,
  ours: number | undefined,
  base: number | undefined,
): readonly Goal[] {
  if (ours === undefined || base === undefined) return [];
  return [
    {
      what,
      target: `at most ${target} times`,
      measured: `${times(ours / base)} (${duration(ours)} against ${duration(base)})`,
      isReached: ours / base <= target,
    },
  ];
}

function requests(what: string, target: number, measured: number | undefined): readonly Goal[] {
  if (measured === undefined) return [];
  return [{ what, target: `at most ${target}`, measured: String(measured), isReached: measured <= target }];
}
