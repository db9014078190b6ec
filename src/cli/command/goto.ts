import { RunnerError } from "../../error.ts";
import { isVersion } from "../../migration/version.ts";
import { changeDatabase } from "../change.ts";
import { backupFlags, limitFlags, onFailure, plan, serviceFlags, targetFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper goto VERSION` */
export const goto: Verb = {
  name: "goto",
  about: "Goes up or down until VERSION is the last applied migration. Version 0 takes everything back.",
  parameters: [
    {
      name: "version",
      text: "the version as its file name has it, such as 000007 or 7; 0 for none",
      isRequired: true,
    },
  ],
  flags: [...targetFlags, plan, ...limitFlags, ...serviceFlags, onFailure, ...backupFlags],
  examples: [
    { line: "lockkeeper goto 7 --source ./migrations --unsigned", means: "version 7, whichever way that is" },
    { line: "lockkeeper goto 0 --target orders-dev", means: "take everything back" },
  ],
  exits: [0, 2, 20, 21, 22, 30, 31, 32],
  run(invocation) {
    const version = invocation.word("version") ?? "";
    if (!isVersion(version)) {
      throw new RunnerError(
        "USAGE",
        `version: expected digits such as 000007, 7 or 1.2, got ${JSON.stringify(version)}`,
      );
    }
    return changeDatabase(invocation, { kind: "version", version, allow: "both" });
  },
};
