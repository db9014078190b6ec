import { required } from "../flag.ts";
import { reason, targetFlags, wait } from "../flags.ts";
import type { Verb } from "../verb.ts";

const why = required(reason);

/** `lockkeeper baseline VERSION` */
export const baseline: Verb = {
  name: "baseline",
  about:
    "Declares that every migration up to VERSION is already in the database and runs none of them: " +
    "for a database that existed before lockkeeper. Refused once there is a history.",
  parameters: [{ name: "version", text: "the last migration that is already there", isRequired: true }],
  flags: [why, ...targetFlags, wait],
  examples: [
    {
      line: 'lockkeeper baseline 42 --reason "restored from the old tool" --target orders-prod',
      means: "the first 42 migrations count as applied",
    },
  ],
  exits: [0, 2, 20, 30, 31],
  async run(invocation) {
    const { output, word, get } = invocation;
    const [{ mend }, maintenance] = await Promise.all([import("../mend.ts"), import("../../maintenance.ts")]);
    const version = word("version") ?? "";
    const {
      result: { declared },
      audit,
    } = await mend(invocation, get(why), (declaration, target, options) =>
      maintenance.baseline(version, declaration, target, options),
    );
    output.result(
      { version, declared, audit },
      () =>
        `${declared} ${declared === 1 ? "migration" : "migrations"} declared as applied, up to ${version}`,
    );
    return 0;
  },
};
