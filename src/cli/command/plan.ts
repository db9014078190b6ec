import { RunnerError } from "../../error.ts";
import type { Goal } from "../../plan/plan.ts";
import { choiceFlag, switchFlag, textFlag } from "../flag.ts";
import { chooseTarget, release, targetFlags } from "../flags.ts";
import type { Invocation, Verb } from "../verb.ts";
import { stepCount } from "./up.ts";

const to = textFlag("to", {
  placeholder: "<version>",
  text: "plan for goto VERSION",
  explained: "the newest",
});
const steps = textFlag("steps", {
  placeholder: "<n>",
  text: "plan for up n, or with --direction down for down n",
});
const direction = choiceFlag("direction", {
  text: "which way --steps go",
  choices: ["up", "down"],
  fallback: "up",
});
const exitCode = switchFlag("exit-code", { text: "exit 10 when there are steps, 0 when there are none" });

/** `lockkeeper plan` */
export const plan: Verb = {
  name: "plan",
  about:
    "Shows what up would run now, changing nothing; with --to what goto would, with --steps what up n or down n would. " +
    "The digest it prints can be given to up --plan, which runs exactly that or refuses.",
  parameters: [],
  flags: [to, steps, direction, exitCode, ...targetFlags],
  examples: [
    { line: "lockkeeper plan --source ./migrations --unsigned", means: "what up would do" },
    {
      line: "lockkeeper plan --target orders-prod --exit-code --output json",
      means: "in a pipeline: exit 10 when something is pending",
    },
    { line: "lockkeeper plan --steps 1 --direction down --target orders-dev", means: "what down would do" },
  ],
  exits: [0, 2, 10, 20, 22, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const goal = goalOf(invocation);
    const [wiring, { planRun }, { describePlan, formatPlan }] = await Promise.all([
      context.wire(),
      import("../../runner.ts"),
      import("../show-plan.ts"),
    ]);
    await using opened = await wiring.openTarget(chooseTarget(invocation), "both");
    const made = await planRun({ goal, release: get(release) ?? null }, opened.target, {
      signal,
      emit: () => undefined,
      now: () => new Date(),
    });
    output.result(describePlan(made), () => formatPlan(made, output.paint.out));
    return get(exitCode) && made.steps.length > 0 ? 10 : 0;
  },
};

function goalOf({ get }: Invocation): Goal {
  const version = get(to);
  const count = get(steps);
  if (version !== undefined && count !== undefined)
    throw new RunnerError("USAGE", "--to and --steps do not go together");
  if (version !== undefined) return { kind: "version", version, allow: "both" };
  if (count !== undefined) return { kind: "steps", direction: get(direction), count: stepCount(count) };
  if (get(direction) === "down") return { kind: "steps", direction: "down", count: 1 };
  return { kind: "latest" };
}
