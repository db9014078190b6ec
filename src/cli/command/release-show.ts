import { chooseTarget, release, releaseFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper release show` */
export const releaseShow: Verb = {
  name: "release show",
  about:
    "Shows what a release holds, what is new in it, who signed it and whether it would be taken; also one that would be refused.",
  parameters: [],
  flags: [...releaseFlags],
  examples: [
    {
      line: "lockkeeper release show --source s3://releases/orders --stream orders --trust orders.pub",
      means: "the newest release of a bucket",
    },
    {
      line: "lockkeeper release show --source ./migrations --stream orders --unsigned --output json",
      means: "plain files, as a run would see them",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const [wiring, show] = await Promise.all([context.wire(), import("../show-release.ts")]);
    const opened = await wiring.openReleases(chooseTarget(invocation));
    const paint = output.paint.out;
    if (opened.kind === "plain") {
      const { releases } = opened;
      const found = await releases.fetch(
        {
          highWaterMark: undefined,
          expected: get(release),
          now: new Date(),
          applied: () => Promise.resolve([]),
        },
        signal,
      );
      output.result(
        show.describeFolder(found, releases.url),
        () =>
          `${show.formatMigrations(found.migrations, paint)}\n\n${show.formatFolder(found, releases.url, paint)}`,
      );
      return 0;
    }
    const { inspectRelease } = await import("../../release/review/inspect.ts");
    const found = await inspectRelease(
      { ...opened, digest: get(release), withBodies: false, now: new Date() },
      signal,
    );
    output.result(
      show.describeInspection(found),
      () =>
        `${show.formatMigrations(found.manifest.migrations, paint)}\n\n${show.formatInspection(found, paint)}`,
    );
    return 0;
  },
};
