import { chooseTarget, streamFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper version` */
export const version: Verb = {
  name: "version",
  about:
    'The version of the last applied migration; 0 before the first. Needs no source. (This program\'s own: "lockkeeper --version".)',
  parameters: [],
  flags: [...streamFlags],
  examples: [{ line: "lockkeeper version --database postgres://migrator@db/orders", means: "prints 000042" }],
  exits: [0, 2, 31],
  async run(invocation) {
    const { context, output, signal } = invocation;
    const wiring = await context.wire();
    await using opened = await wiring.openDatabase(chooseTarget(invocation));
    const { position } = await opened.driver.state(opened.stream, signal);
    output.result(
      { stream: opened.stream, version: position.version, applied: position.length },
      () => position.version ?? "0",
    );
    return 0;
  },
};
