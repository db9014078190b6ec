import { config, deadline, target } from "../flags.ts";
import { terminationLog } from "../termination.ts";
import type { Verb } from "../verb.ts";

const everyTarget = {
  ...target,
  text: "only this target of the configuration file",
  fallback: "all of them",
};
const ownDeadline = {
  ...deadline,
  text: "how long this process has; what is not done by then is handed over. 0 for as long as it takes",
};

/** `lockkeeper work` */
export const work: Verb = {
  name: "work",
  about:
    "Executes runs that a server has accepted and nobody works on, to their end: for jobs of Cloud Run, Kubernetes and ECS. " +
    "It starts none itself, and ends when none is left. SIGTERM, and the end of its time, hand over what is under way: " +
    "to a new execution of the job that work in the configuration names, else to whoever works next. " +
    "Log lines go to standard output.",
  parameters: [],
  flags: [config, everyTarget, ownDeadline, terminationLog],
  examples: [
    { line: "lockkeeper work --config lockkeeper.yaml", means: "as the command of a job that serve starts" },
    {
      line: "lockkeeper work --config lockkeeper.yaml --target orders-prod --deadline 55m",
      means: "one target, in a job whose time-out is an hour",
    },
  ],
  exits: [0, 2, 20, 21, 22, 31, 32, 143],
  async run({ context, signal, get }) {
    const wiring = await context.wire();
    const choice = { config: get(config), target: get(everyTarget), deadlineMs: get(ownDeadline) ?? 0 };
    return wiring.work(choice, signal);
  },
};
