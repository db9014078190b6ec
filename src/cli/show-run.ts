import { formatPairs } from "./output.ts";
import type { Paint } from "./output.ts";
import type { RemoteRun } from "./remote-run.ts";

/** A server's run, for a person. */
export function formatRun(run: RemoteRun, paint: Paint): string {
  const status = run.outcome === null ? run.status : `${run.status}, ${run.outcome}`;
  const painted = !run.done
    ? paint.warn(status)
    : run.status === "succeeded"
      ? paint.good(status)
      : paint.bad(status);
  return formatPairs([
    ["run", run.id],
    ["target", run.target],
    ["status", painted],
    ["release", run.release === null ? undefined : run.release.digest],
    ["from", run.from ?? "0"],
    ["to", run.to ?? "0"],
    ["done", `${run.progress.applied} of ${run.progress.total}`],
  ]);
}
