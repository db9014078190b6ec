import { switchFlag } from "../flag.ts";
import { auditedReason, streamFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

const cancel = switchFlag("cancel", {
  text: "also ask the run that is under way to stop, at its next safe point",
});

/** `lockkeeper pause` */
export const pause: Verb = {
  name: "pause",
  about:
    "Lets no run of a database begin, whoever asks for it and whatever is published, until lockkeeper resume. For an " +
    "emergency: it needs the database alone, no bucket and no server. A run that is under way goes on, unless --cancel " +
    "asks it to stop; what it has applied stays. paused: true in a target's configuration does the same without the database.",
  parameters: [],
  flags: [auditedReason, cancel, ...streamFlags],
  examples: [
    {
      line: 'lockkeeper pause --cancel --reason "a release key was stolen" --target orders-prod',
      means: "stop everything",
    },
  ],
  exits: [0, 2, 30, 31],
  async run(invocation) {
    const { output, get } = invocation;
    const [{ doByHand }, { setPaused }] = await Promise.all([
      import("../by-hand.ts"),
      import("../../run/by-hand.ts"),
    ]);
    const why = get(auditedReason) ?? "";
    const done = await doByHand(invocation, why, async (by, place, options) => {
      const { result: isChanged, audit } = await setPaused(true, by, place, options);
      const { driver, stream } = place;
      const { lease, now } = await driver.state(stream, options.signal);
      const run = lease !== null && lease.expiresAt > now ? lease.runId : null;
      const because = `the stream was paused${why === "" ? "" : `: ${why}`}`;
      const isCanceled =
        run !== null && get(cancel) && (await driver.requestCancel(run, because, options.signal));
      return { result: { isChanged, run, isCanceled }, audit };
    });
    const { stream, result, audit } = done;
    const { isChanged, run, isCanceled } = result;
    const underWay =
      run === null
        ? "no run is under way"
        : isCanceled
          ? `run ${run} was asked to stop`
          : `run ${run} is under way and goes on; pause --cancel asks it to stop`;
    output.result(
      { stream, paused: true, changed: isChanged, run, canceled: isCanceled, audit },
      () => `${stream} ${isChanged ? "is paused" : "was paused already"}; ${underWay}`,
    );
    return 0;
  },
};
