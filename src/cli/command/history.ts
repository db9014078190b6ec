import { chooseTarget, last, streamFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper history` */
export const history: Verb = {
  name: "history",
  about:
    "What was done to the database: each migration applied, taken back, declared or failed, oldest first. Needs no source.",
  parameters: [],
  flags: [last, ...streamFlags],
  examples: [
    { line: "lockkeeper history --database postgres://migrator@db/orders", means: "the newest 50 entries" },
    {
      line: "lockkeeper history --last 1 --target orders-prod --output json",
      means: "the newest one, for a program",
    },
  ],
  exits: [0, 2, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const [wiring, { describeHistory, formatHistory }] = await Promise.all([
      context.wire(),
      import("../show-history.ts"),
    ]);
    await using opened = await wiring.openDatabase(chooseTarget(invocation));
    const entries = await opened.driver.history(opened.stream, { last: get(last) ?? 50 }, signal);
    output.result(describeHistory(opened.stream, entries), () => formatHistory(entries, output.paint.out));
    return 0;
  },
};
