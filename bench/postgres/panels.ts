import type { Bar, Panel } from "../chart.ts";
import type { Line } from "../result.ts";
import { median } from "../table.ts";
import type { PostgresRun } from "./result.ts";
import { type ToolName, toolNames } from "./tool.ts";

/** What the chart shows: where a tool reads plain files from S3 or GCS as fast or as slowly as from elsewhere is in the tables. */
const shown: readonly ToolName[] = toolNames.filter((name) => name !== "lockkeeper, plain files, S3");

/** What the ratios are of. */
const unit: ToolName = "lockkeeper, signed release, S3";

/** The panels of this scene: the size that was measured with delays, and the largest. */
export function postgresPanels(lines: readonly Line[]): readonly Panel[] {
  const runs = lines.filter((line) => line.kind === "postgres-run");
  const far = runs.filter(({ bucketMs, databaseMs }) => bucketMs + databaseMs > 0);
  const largest = (which: PostgresRun["case"]): number =>
    Math.max(...far.filter((run) => run.case === which).map(({ migrations }) => migrations));
  const bucketMs = Math.max(...far.map((run) => run.bucketMs));
  const databaseMs = Math.max(...far.map((run) => run.databaseMs));
  const over = `${bucketMs} ms to the bucket, ${databaseMs} ms to the database`;
  const panel = (which: PostgresRun["case"], isFar: boolean): Panel => {
    const migrations = largest(which);
    const here = runs.filter((run) => run.case === which && run.migrations === migrations);
    const what = which === "fresh" ? "An empty database" : "Nothing to do";
    const drawn = bars(
      here.filter((run) =>
        isFar
          ? run.databaseMs === databaseMs && (run.tool.endsWith("folder") || run.bucketMs === bucketMs)
          : run.databaseMs + run.bucketMs === 0,
      ),
    );
    return {
      title: `${what}, ${migrations.toLocaleString("en")} migrations, ${isFar ? over : "on loopback"}`,
      bars: drawn,
      unit: drawn.find(({ label }) => label === unit)?.median,
    };
  };
  return [panel("fresh", false), panel("fresh", true), panel("noop", false), panel("noop", true)].filter(
    ({ bars }) => bars.length > 0,
  );
}

/** Fastest first. */
function bars(runs: readonly PostgresRun[]): readonly Bar[] {
  return shown
    .flatMap((tool) => {
      const ms = runs.filter((run) => run.tool === tool).map((run) => run.ms);
      if (ms.length === 0) return [];
      const isOurs = tool.startsWith("lockkeeper");
      return [{ label: tool, isOurs, median: median(ms), least: Math.min(...ms), most: Math.max(...ms) }];
    })
    .toSorted((a, b) => a.median - b.median);
}
