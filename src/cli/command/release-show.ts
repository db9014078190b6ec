import { chooseTarget, release, releaseFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper release show` */
export const releaseShow: Verb = {
  name: "release show",
  about: "Shows what a release holds: its digest, who signed it, until when it may be applied, and its migrations in order.",
  parameters: [],
  flags: [...releaseFlags],
  examples: [
    {
      line: "lockkeeper release show --source s3://releases/orders --stream orders --trust orders.pub",
      means: "the newest release of a bucket",
    },
    { line: "lockkeeper release show --source ./migrations --stream orders --unsigned --output json", means: "plain files, as a run would see them" },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const [wiring, { describeRelease, formatRelease, formatMigrations }] = await Promise.all([
      context.wire(),
      import("../show-release.ts"),
    ]);
    const { releases } = await wiring.openReleases(chooseTarget(invocation));
    const found = await releases.fetch(
      { highWaterMark: undefined, expected: get(release), now: new Date(), applied: () => Promise.resolve([]) },
      signal,
    );
    output.result(
      { ...describeRelease(found), migrations: found.migrations },
      () => `${formatMigrations(found.migrations, output.paint.out)}\n\n${formatRelease(found)}`,
    );
    return 0;
  },
};
