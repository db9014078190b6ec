import type { Body } from "../migration/migration.ts";
import type { Plan, Step } from "../plan/plan.ts";
import { formatTable } from "./output.ts";
import type { Paint } from "./output.ts";

/** A plan as programs read it. */
export function describePlan(plan: Plan): Record<string, unknown> {
  return {
    stream: plan.stream,
    digest: plan.digest,
    release: { digest: plan.releaseDigest },
    from: plan.from.version,
    to: plan.to.version,
    steps: plan.steps.map((step) => ({
      seq: step.migration.seq,
      version: step.migration.version,
      direction: step.direction,
      path: step.body.path,
      sha256: step.body.sha256,
      size: step.body.size,
      tx: step.body.tx,
      locks: step.body.locks,
      resumeAt: step.resumeAt,
      breaking: step.registered?.breaking ?? false,
      dependencies: step.registered?.dependencies ?? [],
    })),
  };
}

function describeWay({ tx, code, statements = [] }: Body, resumeAt: number): string {
  if (code === true) return "program";
  if (tx === "one") return "transaction";
  if (statements.some(({ kind }) => kind === "backfill")) return "backfill";
  return resumeAt > 0 ? `from statement ${resumeAt + 1}` : "by statement";
}

/** `breaking; needs billing 12` */
function describeRegistered({ registered }: Step): string {
  if (registered === undefined) return "";
  const needs = registered.dependencies.map(({ service, minVersion }) => `${service} ${minVersion}`);
  return [
    ...(registered.breaking ? ["breaking"] : []),
    ...(needs.length > 0 ? [`needs ${needs.join(", ")}`] : []),
  ].join("; ");
}

/** A plan as a person approves it. */
export function formatPlan(plan: Plan, paint: Paint): string {
  const at = plan.from.version ?? "0";
  if (plan.steps.length === 0)
    return `${paint.good("nothing to do")}; ${plan.stream} is at ${at}\nplan     ${plan.digest}`;
  const isRegistered = plan.steps.some(({ registered }) => registered !== undefined);
  const rows = plan.steps.map((step) => [
    step.migration.version,
    step.direction,
    step.body.path,
    describeWay(step.body, step.resumeAt),
    step.body.locks.join(", "),
    ...(isRegistered ? [describeRegistered(step)] : []),
    step.body.sha256.slice(0, 12),
  ]);
  const services = isRegistered ? ["services"] : [];
  const head = ["version", "direction", "migration", "runs", "locks", ...services, "sha256"];
  const table = formatTable(head, rows, paint);
  const steps = `${plan.steps.length} ${plan.steps.length === 1 ? "step" : "steps"}`;
  return `${table}

${paint.strong(steps)}: ${plan.stream} from ${at} to ${plan.to.version ?? "0"}
release  ${plan.releaseDigest}
plan     ${plan.digest}`;
}
