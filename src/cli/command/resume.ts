import { auditedReason, streamFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper resume` */
export const resume: Verb = {
  name: "resume",
  about:
    "Ends a pause: what starts by itself goes on at its next look, and everybody else may ask again. It begins no run. " +
    "A target that is paused by its configuration stays so.",
  parameters: [],
  flags: [auditedReason, ...streamFlags],
  examples: [
    {
      line: 'lockkeeper resume --reason "the key is revoked" --target orders-prod',
      means: "let runs begin again",
    },
  ],
  exits: [0, 2, 30, 31],
  async run(invocation) {
    const { output, get } = invocation;
    const [{ doByHand }, { setPaused }] = await Promise.all([
      import("../by-hand.ts"),
      import("../../run/by-hand.ts"),
    ]);
    const { stream, result, audit } = await doByHand(
      invocation,
      get(auditedReason) ?? "",
      (by, place, options) => setPaused(false, by, place, options),
    );
    output.result(
      { stream, paused: false, changed: result, audit },
      () => `${stream} ${result ? "goes on" : "was not paused in the database"}`,
    );
    return 0;
  },
};
