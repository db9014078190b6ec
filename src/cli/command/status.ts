import { chooseTarget, targetFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper status` */
export const status: Verb = {
  name: "status",
  about:
    "Where the database is, what is pending, what needs attention, and who holds the lease. Changes nothing.",
  parameters: [],
  flags: [...targetFlags],
  examples: [
    { line: "lockkeeper status --target orders-prod", means: "one page for the person on call" },
    {
      line: "lockkeeper status --source ./migrations --unsigned --output json",
      means: "the same for a program",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal } = invocation;
    const [wiring, { readStatus }, { describeStatus, formatStatus }] = await Promise.all([
      context.wire(),
      import("../../status/status.ts"),
      import("../show-status.ts"),
    ]);
    await using opened = await wiring.openTarget(chooseTarget(invocation), "both");
    const read = await readStatus(opened.target, { signal, now: () => new Date() });
    output.result(describeStatus(read), () => formatStatus(read, output.paint.out));
    return 0;
  },
};
