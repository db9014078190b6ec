import { required, textFlag } from "../flag.ts";
import { auditedReason, streamFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

const runId = required(
  textFlag("run", { placeholder: "<id>", text: "the run that holds the lease, as status shows it" }),
);
const why = required(auditedReason);

/** `lockkeeper unlock --run ID` */
export const unlock: Verb = {
  name: "unlock",
  about:
    "Takes the lease from a run that died. Refused while its lease is alive: a dead run's lease ends by itself within seconds, " +
    "so this is seldom needed.",
  parameters: [],
  flags: [runId, why, ...streamFlags],
  examples: [
    {
      line: 'lockkeeper unlock --run orders-prod.01JDZ… --reason "node was lost" --target orders-prod',
      means: "after status named that run",
    },
  ],
  exits: [0, 2, 30, 31],
  async run(invocation) {
    const { output, get } = invocation;
    const [{ doByHand }, byHand] = await Promise.all([
      import("../by-hand.ts"),
      import("../../run/by-hand.ts"),
    ]);
    const run = get(runId);
    const { stream, result, audit } = await doByHand(invocation, get(why), (by, place, options) =>
      byHand.unlock(run, by, place, options),
    );
    const { token } = result;
    output.result(
      { stream, run, token, audit },
      () => `unlocked ${stream}; the next fencing token is ${token}`,
    );
    return 0;
  },
};
