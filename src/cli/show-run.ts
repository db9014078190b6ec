import { formatPairs, formatTable } from "./output.ts";
import type { Paint } from "./output.ts";
import type { RemotePlan, RemoteRun } from "./remote-run.ts";

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

/** What a server's run would do, for a person. */
export function formatRemotePlan({ target, plan }: RemotePlan, paint: Paint): string {
  const at = plan.from ?? "0";
  const digests = `release  ${plan.release.digest}\nplan     ${plan.digest}`;
  if (plan.steps.length === 0) return `${paint.good("nothing to do")}; ${target} is at ${at}\n${digests}`;
  const rows = plan.steps.map((step) => [
    step.version,
    step.direction,
    step.path,
    step.tx === "one" ? "transaction" : "by statement",
    step.locks.join(", "),
    step.breaking ? "breaking" : "",
    step.sha256.slice(0, 12),
  ]);
  const table = formatTable(
    ["version", "direction", "migration", "runs", "locks", "services", "sha256"],
    rows,
    paint,
  );
  const steps = `${plan.steps.length} ${plan.steps.length === 1 ? "step" : "steps"}`;
  return `${table}\n\n${paint.strong(steps)}: ${target} from ${at} to ${plan.to ?? "0"}\n${digests}`;
}
