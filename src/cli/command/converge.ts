import { changeDatabase } from "../change.ts";
import { all, atOnce, convergeAll } from "../converge-all.ts";
import { allowBreaking } from "../flags.ts";
import type { Verb } from "../verb.ts";
import { up } from "./up.ts";

/** `lockkeeper converge` */
export const converge: Verb = {
  name: "converge",
  about:
    "Applies what is pending like up, but for schedules and whatever else starts by itself, again and again (init containers: init): " +
    "it does not try a release a second time that failed on this database, and does not undo a rollback. " +
    "Both are refused until a newer release comes, or a person runs up. " +
    "With --all it does so for every target of a configuration; those that are paused or rolled back count for nothing there.",
  parameters: [],
  // what starts by itself has nobody who could allow what breaks something
  flags: [...up.flags.filter((flag) => flag !== allowBreaking), all, atOnce],
  examples: [
    {
      line: "lockkeeper converge --source s3://releases/orders --trust orders.pub --stream orders",
      means: "before an application starts: every replica waits until one of them has applied the release",
    },
    {
      line: "lockkeeper converge --target orders-prod --deadline 10m",
      means: "every night, from a schedule",
    },
    {
      line: "lockkeeper converge --all --config lockkeeper.yaml",
      means: "every few minutes, from a schedule: whatever no event has told",
    },
  ],
  exits: [0, 2, 20, 21, 22, 30, 31, 32, 143],
  run: (invocation) =>
    invocation.get(all)
      ? convergeAll(invocation)
      : changeDatabase(invocation, { kind: "latest" }, "converge"),
};
