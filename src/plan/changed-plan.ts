import { RunnerError } from "../error.ts";
import type { Release } from "../release/release.ts";
import { makePlan, planDigest, positionAt } from "./make-plan.ts";
import type { Goal, Plan } from "./plan.ts";
import { repeatableStep, type AppliedRepeatables } from "./repeatable.ts";
import { stepsUp } from "./step.ts";

/** How many earlier starts and shorter ends are tried to find out what changed. */
const lookBack = 200;

/** What became of an approved plan that is not the plan of now. */
export type PlanChange =
  /** the very steps were done meanwhile: nothing is left to do */
  { readonly kind: "done" } | { readonly kind: "changed"; readonly error: RunnerError };

/**
 * Compares an approved digest with the plan of now and says what changed. A digest holds no list, so the likely
 * plans are made again: started earlier (others have applied since), or ending earlier (the release has grown since).
 */
export function explainPlanChange(approved: string, release: Release, plan: Plan): PlanChange {
  const here = plan.from.length;
  for (let from = here - 1; from >= Math.max(0, here - lookBack); from -= 1) {
    if (upDigests(release, from, here).includes(approved)) return { kind: "done" };
    if (plan.to.length > here && upDigests(release, from, plan.to.length).includes(approved)) {
      return changed(
        approved,
        plan,
        `${here - from} of its migrations were applied since, up to version "${plan.from.version ?? "none"}"`,
      );
    }
  }
  for (let to = plan.to.length - 1; to > Math.max(here, plan.to.length - lookBack); to -= 1) {
    if (upDigests(release, here, to).includes(approved)) {
      const added = release.migrations.slice(to, plan.to.length).map(({ path }) => `"${path}"`);
      return changed(approved, plan, `the release has gained ${list(added)} since`);
    }
  }
  return changed(
    approved,
    plan,
    `the plan of now is ${list(plan.steps.map(({ direction, body }) => `${direction} "${body.path}"`))}`,
  );
}

/** Whether `plan` is what is left of the approved plan that was begun at version `from`: its last steps. */
export function isRestOf(
  approved: string,
  {
    from,
    goal,
    repeatables,
  }: { readonly from: string | null; readonly goal: Goal; readonly repeatables: AppliedRepeatables },
  release: Release,
  plan: Plan,
): boolean {
  const length = from === null ? 0 : release.migrations.findIndex(({ version }) => version === from) + 1;
  if (from !== null && length === 0) return false;
  const whole = makePlan(
    release,
    { position: positionAt(release, length), unfinished: null, repeatables },
    goal,
  );
  const last = whole.steps.slice(whole.steps.length - plan.steps.length);
  return (
    whole.digest === approved &&
    last.length === plan.steps.length &&
    last.every(
      ({ direction, body }, index) =>
        direction === plan.steps[index]?.direction && body.sha256 === plan.steps[index].body.sha256,
    )
  );
}

/** With no repeatable migration, and with all of them: what was pending of them then is not known any more. */
function upDigests(release: Release, from: number, to: number): readonly string[] {
  const steps = stepsUp(release, from, to, null);
  return [steps, [...steps, ...release.repeatable.map(repeatableStep)]].map((tried) =>
    planDigest(release.stream, positionAt(release, from), tried),
  );
}

function list(names: readonly string[]): string {
  if (names.length === 0) return "nothing";
  const shown = names.slice(0, 5).join(", ");
  return names.length > 5 ? `${shown} and ${names.length - 5} more` : shown;
}

function changed(approved: string, plan: Plan, why: string): PlanChange {
  return {
    kind: "changed",
    error: new RunnerError("PLAN_CHANGED", `the approved plan is no longer what would run: ${why}`, {
      hint: "look at the plan again and approve its new digest",
      fields: { expected: approved, actual: plan.digest, steps: plan.steps.length },
    }),
  };
}
