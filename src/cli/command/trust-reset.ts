import type { TrustReset } from "../../driver/driver.ts";
import { required, switchFlag } from "../flag.ts";
import { auditedReason, streamFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

const why = required(auditedReason);
const releases = switchFlag("releases", {
  text: "also forget the newest release, so that the next one may have any epoch and version",
  // Nobody does this by a variable that is set somewhere.
  hasVariable: false,
});

/** `lockkeeper trust reset` */
export const trustReset: Verb = {
  name: "trust reset",
  about:
    "Makes a database forget the roots it has seen, after root keys were lost or stolen and a new root was pinned in the " +
    "runner's configuration: in that order, because from then on whatever is pinned is believed. With --releases it also " +
    "forgets the newest release, and takes an older one again, or an unsigned folder outside production: only where the " +
    "new releases begin anew. History and chain stay, so no release can say that something else was applied. Refused while a run is under way.",
  parameters: [],
  flags: [why, releases, ...streamFlags],
  examples: [
    {
      line: 'lockkeeper trust reset --reason "new root after the theft of 2 May" --target orders-prod',
      means: "after the new root was deployed",
    },
  ],
  exits: [0, 2, 30, 31],
  async run(invocation) {
    const { output, get } = invocation;
    const [{ doByHand }, { resetTrust }] = await Promise.all([
      import("../by-hand.ts"),
      import("../../run/by-hand.ts"),
    ]);
    const what = { releases: get(releases) };
    const { stream, result, audit } = await doByHand(invocation, get(why), (by, place, options) =>
      resetTrust(what, by, place, options),
    );
    output.result({ stream, forgotten: result, audit }, () => `${stream} forgot ${inWords(result)}`);
    return 0;
  },
};

function inWords({ rootVersion, highWaterMark }: TrustReset): string {
  const forgotten = [
    ...(rootVersion === null ? [] : [`root ${rootVersion}`]),
    ...(highWaterMark === null
      ? []
      : [`release ${highWaterMark.version} of epoch ${highWaterMark.epoch} (${highWaterMark.digest})`]),
  ];
  return forgotten.length === 0 ? "nothing: it remembered none of that" : forgotten.join(" and ");
}
