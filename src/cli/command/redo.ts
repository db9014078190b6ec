import { changeDatabase } from "../change.ts";
import { backupFlags, limitFlags, plan, serviceFlags, targetFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper redo` */
export const redo: Verb = {
  name: "redo",
  about:
    "Takes back the last migration and applies it again, the changed file if it has changed: for trying a migration out.",
  parameters: [],
  flags: [...targetFlags, plan, ...limitFlags, ...serviceFlags, ...backupFlags],
  examples: [
    {
      line: "lockkeeper redo --source ./migrations --unsigned",
      means: "run the last migration once more, down and up",
    },
  ],
  exits: [0, 2, 20, 21, 22, 30, 31, 32],
  run(invocation) {
    return changeDatabase(invocation, { kind: "redo" });
  },
};
