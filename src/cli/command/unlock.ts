import { required, textFlag } from "../flag.ts";
import { chooseTarget, reason, targetFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

const run = required(
  textFlag("run", { placeholder: "<id>", text: "the run that holds the lease, as status shows it" }),
);
const why = required(reason);

/** `lockkeeper unlock --run ID` */
export const unlock: Verb = {
  name: "unlock",
  about:
    "Takes the lease from a run that died. Refused while its lease is alive: a dead run's lease ends by itself within seconds, " +
    "so this is seldom needed.",
  parameters: [],
  flags: [run, why, ...targetFlags],
  examples: [
    {
      line: 'lockkeeper unlock --run orders-prod.01JDZ… --reason "node was lost" --target orders-prod',
      means: "after status named that run",
    },
  ],
  exits: [0, 2, 30, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const wiring = await context.wire();
    await using opened = await wiring.openDatabase(chooseTarget(invocation));
    const { token } = await opened.driver.unlock(opened.stream, get(run), get(why), signal);
    output.result(
      { stream: opened.stream, run: get(run), token },
      () => `unlocked ${opened.stream}; the next fencing token is ${token}`,
    );
    return 0;
  },
};
