import { choiceFlag, required } from "../flag.ts";
import { reason, targetFlags, wait } from "../flags.ts";
import type { Verb } from "../verb.ts";

const as = required(
  choiceFlag("as", {
    text: "what you found: the statement took effect, or it did not",
    choices: ["applied", "not-applied"],
  }),
);
const why = required(reason);

/** `lockkeeper repair --as applied|not-applied` */
export const repair: Verb = {
  name: "repair",
  about:
    "Decides about the one statement of which nobody can tell whether it took effect: a runner died in the middle of it. " +
    "Look at the database first; status names the file and the statement. The next run goes on from there.",
  parameters: [],
  flags: [as, why, ...targetFlags, wait],
  examples: [
    {
      line: 'lockkeeper repair --as applied --reason "the index is there and valid" --target orders-prod',
      means: "go on after the statement",
    },
    {
      line: 'lockkeeper repair --as not-applied --reason "no such index" --target orders-prod',
      means: "run the statement again",
    },
  ],
  exits: [0, 2, 20, 30, 31],
  async run(invocation) {
    const { output, get } = invocation;
    const [{ mend }, maintenance] = await Promise.all([import("../mend.ts"), import("../../maintenance.ts")]);
    const decision = get(as);
    const { result: entry, audit } = await mend(invocation, get(why), (declaration, target, options) =>
      maintenance.repair(decision, declaration, target, options),
    );
    const statement = entry.statementsDone + 1;
    output.result(
      {
        version: entry.version,
        migration: entry.path,
        direction: entry.direction,
        statement,
        statements: entry.statements,
        decision,
        audit,
      },
      () =>
        `${entry.path}: statement ${statement} of ${entry.statements} counts as ${decision}; the next run goes on from there`,
    );
    return 0;
  },
};
