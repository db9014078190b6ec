import type { RunResult } from "../../executor/result.ts";
import { bringUp } from "../bring-up.ts";
import { directionsOf, runChange } from "../change.ts";
import { durationFlag } from "../flag.ts";
import {
  allowBreaking,
  backupFlags,
  chooseTarget,
  deadline,
  limitFlags,
  onFailure,
  release,
  serviceFlags,
  targetFlags,
} from "../flags.ts";
import { openReporter } from "../reporter.ts";
import { showAhead, showResult } from "../show-result.ts";
import { terminationLog } from "../termination.ts";
import type { Invocation, Verb } from "../verb.ts";

const databaseWait = durationFlag("database-wait", {
  text: "how long to wait for a database or a bucket that does not answer yet; 0 asks once",
  fallback: "5m",
});
const wholeDeadline = {
  ...deadline,
  text: "how long all of it may take, waiting included; 0 for ever. Keep it below the Deployment's progressDeadlineSeconds only if every migration is that short",
};

/** As the flag's help says. */
const defaultPatienceMs = 300_000;
/** A person has to come: the same start would meet the same rollback for ever. */
const heldExit = 22;

/** `lockkeeper init` */
export const init: Verb = {
  name: "init",
  about:
    "For init containers: waits until the database answers, applies what is pending or waits for the replica that does, then exits 0. " +
    "With --release a database that has that release needs no lease, and no bucket if it was applied last; newer releases may have followed it. " +
    "Like converge it neither tries a release again that failed on this database nor undoes a rollback. " +
    "Waited out are a server that starts or fails over, an unknown host name, a lost connection and, for half a minute, a bucket that refuses: a pod's identity may come after it. A wrong password, a missing database or a bad certificate end it at once.",
  parameters: [],
  flags: [
    databaseWait,
    ...targetFlags,
    ...limitFlags.map((flag) => (flag === deadline ? wholeDeadline : flag)),
    // what starts by itself has nobody who could allow what breaks something
    ...serviceFlags.filter((flag) => flag !== allowBreaking),
    onFailure,
    ...backupFlags,
    terminationLog,
  ],
  examples: [
    {
      line: "lockkeeper init --target orders-prod --release sha256:…",
      means: "in a Deployment whose template names the release that it was built with",
    },
    {
      line: "lockkeeper init --source gs://releases/orders --trust /keys/orders.pub --stream orders --database-wait 10m",
      means: "the newest release of a bucket, without a configuration file",
    },
  ],
  exits: [0, 2, 20, 21, 22, 30, 31, 32, 143],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const goal = { kind: "latest" } as const;
    const [wiring] = await Promise.all([context.wire(), import("../../runner.ts")]);
    await using opened = await wiring.openTarget(
      chooseTarget(invocation),
      directionsOf(goal, get(onFailure)),
    );
    const { target } = opened;
    const reporter = await openReporter(output);
    try {
      const end = await bringUp(target, {
        release: get(release),
        patienceMs: get(databaseWait) ?? defaultPatienceMs,
        signal,
        output,
        run: (limits, looked) =>
          runChange(invocation, target, { goal, trigger: "init", emit: reporter.emit, limits, looked }),
      });
      reporter.end();
      if (end.kind === "ahead") return showAhead(invocation, target.name, end);
      return showRun(invocation, end.result);
    } finally {
      reporter.end();
    }
  },
};

function showRun(invocation: Invocation, result: RunResult): number {
  const { error } = result;
  if (error === null && result.release !== null) invocation.output.note(`release ${result.release.digest}`);
  return error?.code === "HELD" ? showResult(invocation, result, heldExit) : showResult(invocation, result);
}
