import { RunnerError } from "../../error.ts";
import { bodiesOf, type ReleaseProvider } from "../../release/release.ts";
import { chooseTarget, release, releaseFlags } from "../flags.ts";
import type { Invocation, Verb } from "../verb.ts";

/** `lockkeeper verify` */
export const verify: Verb = {
  name: "verify",
  about:
    "Checks a release as a run would: signatures, stream, environment, expiry, order, and then every one of its bytes. " +
    "Needs no database, so it cannot tell whether the release is older than what was applied.",
  parameters: [],
  flags: [...releaseFlags],
  examples: [
    {
      line: "lockkeeper verify --source s3://releases/orders --stream orders --trust orders.pub",
      means: "the newest release",
    },
    { line: "lockkeeper verify --target orders-prod --release sha256:…", means: "exactly this one" },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const [wiring, show] = await Promise.all([context.wire(), import("../show-release.ts")]);
    const opened = await wiring.openReleases(chooseTarget(invocation));
    if (opened.kind === "plain") return await verifyFolder(opened.releases, invocation);
    if (opened.trust === undefined) {
      throw new RunnerError("USAGE", "no key is trusted: --trust <file> (or LOCKKEEPER_TRUST) is missing", {
        hint: 'to look at a release without verifying it, use "lockkeeper release show"',
      });
    }
    const { inspectRelease } = await import("../../release/review/inspect.ts");
    const { environment = "default" } = opened;
    const found = await inspectRelease(
      { ...opened, environment, digest: get(release), withBodies: true, now: new Date() },
      signal,
    );
    // an expired release is shown as it is, and refused as a run would refuse it
    if (found.verdict.kind === "refused") throw found.verdict.error;
    if (found.isExpired) {
      throw new RunnerError(
        "RELEASE_EXPIRED",
        `the release expired at ${found.statement.expires.toISOString()}`,
        { hint: "publish it again" },
      );
    }
    if (found.stale !== null) throw found.stale;
    output.result(show.describeInspection(found), () => show.formatInspection(found, output.paint.out));
    return 0;
  },
};

/** Without signatures there are still names, order, encoding, and bytes that stay the same while they are read. */
async function verifyFolder(releases: ReleaseProvider, { output, signal, get }: Invocation): Promise<number> {
  const show = await import("../show-release.ts");
  const found = await releases.fetch(
    { highWaterMark: undefined, expected: get(release), now: new Date(), applied: () => Promise.resolve([]) },
    signal,
  );
  await releases.bodies(found, bodiesOf(found), signal);
  output.result(show.describeFolder(found, releases.url), () =>
    show.formatFolder(found, releases.url, output.paint.out),
  );
  return 0;
}
