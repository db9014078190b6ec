import { RunnerError } from "../../error.ts";
import { changeDatabase } from "../change.ts";
import { parseCount } from "../flag.ts";
import { backupFlags, limitFlags, onFailure, plan, serviceFlags, targetFlags } from "../flags.ts";
import { terminationLog } from "../termination.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper up [n]` */
export const up: Verb = {
  name: "up",
  about:
    "Applies the migrations that are pending, in their order, each exactly once. Doing nothing is a success.",
  parameters: [{ name: "n", text: "apply only the first n that are pending", isRequired: false }],
  flags: [...targetFlags, plan, ...limitFlags, ...serviceFlags, onFailure, ...backupFlags, terminationLog],
  examples: [
    {
      line: "lockkeeper up --source s3://releases/orders --trust orders.pub --database postgres://migrator@db/orders",
      means: "apply the newest signed release of a bucket",
    },
    {
      line: "lockkeeper up --source ./migrations --unsigned",
      means: "apply plain files to $DATABASE_URL, on a laptop",
    },
    {
      line: "lockkeeper up --target orders-prod --plan sha256:…",
      means: "apply exactly what was approved, or refuse",
    },
    {
      line: "lockkeeper up --target orders-prod --backup-command 'pg_dump --format=custom --file=/backup/orders' --on-failure rollback",
      means: "make a backup first, and leave nothing behind where a migration fails",
    },
  ],
  exits: [0, 2, 20, 21, 22, 30, 31, 32],
  run(invocation) {
    const word = invocation.word("n");
    return changeDatabase(
      invocation,
      word === undefined ? { kind: "latest" } : { kind: "steps", direction: "up", count: stepCount(word) },
    );
  },
};

/**
 * The `n` of `up n` and `down n`.
 *
 * @throws RunnerError `USAGE` for anything but a whole number from 1
 */
export function stepCount(word: string): number {
  const count = parseCount(word, 1);
  if (count !== undefined) return count;
  throw new RunnerError("USAGE", `n: expected a whole number from 1, got ${JSON.stringify(word)}`, {
    hint: 'to go to a version by its name, use "lockkeeper goto VERSION"',
  });
}
