import { changeDatabase } from "../change.ts";
import { backupFlags, limitFlags, plan, targetFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";
import { stepCount } from "./up.ts";

/** `lockkeeper down [n]` */
export const down: Verb = {
  name: "down",
  about:
    "Takes back the last migration, or the last n, by their down files. A migration without one is refused. " +
    "The database is then held: automatic triggers change nothing until a newer release or a person comes.",
  parameters: [{ name: "n", text: 'how many (default: 1); all of them is "goto 0"', isRequired: false }],
  flags: [...targetFlags, plan, ...limitFlags, ...backupFlags],
  examples: [
    { line: "lockkeeper down --source ./migrations --unsigned", means: "take back the last migration" },
    { line: "lockkeeper down 3 --target orders-dev", means: "take back the last three" },
  ],
  exits: [0, 2, 20, 21, 22, 30, 31, 32],
  run(invocation) {
    return changeDatabase(invocation, {
      kind: "steps",
      direction: "down",
      count: stepCount(invocation.word("n") ?? "1"),
    });
  },
};
