import { chooseTarget, release, releaseFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper verify` */
export const verify: Verb = {
  name: "verify",
  about:
    "Checks a release as a run would: signatures, stream, environment, expiry, order, and then every one of its bytes. " +
    "Needs no database, so it cannot tell whether the release is older than what was applied.",
  parameters: [],
  flags: [...releaseFlags],
  examples: [
    { line: "lockkeeper verify --source s3://releases/orders --stream orders --trust orders.pub", means: "the newest release" },
    { line: "lockkeeper verify --target orders-prod --release sha256:…", means: "exactly this one" },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const [wiring, { describeRelease, formatRelease }] = await Promise.all([context.wire(), import("../show-release.ts")]);
    const { releases, environment } = await wiring.openReleases(chooseTarget(invocation));
    const found = await releases.fetch(
      { highWaterMark: undefined, expected: get(release), now: new Date(), applied: () => Promise.resolve([]) },
      signal,
    );
    const bodies = found.migrations.flatMap((migration) => (migration.down === undefined ? [migration] : [migration, migration.down]));
    const bytes = await releases.bodies(found, bodies, signal);
    const size = bodies.reduce((sum, body) => sum + body.size, 0);
    output.result({ ...describeRelease(found), environment, verified: { bodies: bytes.size, bytes: size } }, () =>
      [
        formatRelease(found),
        `${output.paint.out.good("verified")}  ${bodies.length} bodies, ${size} bytes, for environment ${environment}`,
        ...found.warnings.map((warning) => `${output.paint.out.warn("warning")}   ${warning}`),
      ].join("\n"),
    );
    return 0;
  },
};
