import { RunnerError } from "../../error.ts";
import type { WritableSource } from "../../source/source.ts";
import type { TrustAnchor } from "../trust/anchor.ts";
import { assertExpected, readEarlier, trustedIn } from "./earlier.ts";
import { signEnvelope } from "../envelope.ts";
import { resolveTrusts } from "../trust/environment-trust.ts";
import type { EnvironmentTrusts } from "../trust/environment-trust.ts";
import { nothingPublished } from "../head.ts";
import type { PublicKey, Signer } from "../trust/key.ts";
import { layout } from "../layout.ts";
import { releaseLimits } from "../limits.ts";
import { assertNotStale, maxTimestampHours, readVouched, writeTimestamp } from "../timestamp.ts";
import type { Timestamp } from "../timestamp.ts";
import type { TimestampRule } from "../trust/trust.ts";
import type { VerifiedStatement } from "../verify.ts";

/** For which stream's newest release to vouch, and in whose name. */
export interface VouchOptions {
  readonly destination: WritableSource;
  readonly stream: string;
  /** keys of the timestamp role: as many as it asks for */
  readonly keys: readonly [Signer, ...Signer[]];
  /** what the runners trust, with its timestamp role */
  readonly trust: TrustAnchor;
  /** the release that must be the newest, where that is known from elsewhere than the bucket */
  readonly expected?: string | undefined;
  readonly expiresInHours: number;
  readonly now: Date;
}

/** What was vouched for, and by whom. */
export interface VouchResult extends Timestamp {
  /** ids of keys */
  readonly signers: readonly string[];
  /** the release's own expiry: a timestamp makes it no longer */
  readonly releaseExpires: Date;
}

/**
 * Writes the timestamp of a stream: word that the release which the head names is the newest, for hours.
 *
 * The release is verified as its runners would before anybody vouches for it. What was vouched for before is not taken
 * back: a head that was moved to an older release gets no word. Whoever can also replace the timestamp itself could
 * still have an old pair vouched for; `expected` closes that.
 *
 * @throws RunnerError `RELEASE_NOT_FOUND`, `UNEXPECTED_RELEASE`, and the codes of `verify.ts` for the release
 * @throws RunnerError `USAGE` — the keys are not enough of the trust's timestamp role; `VALIDITY` — longer than any runner takes
 * @throws RunnerError `STALE_RELEASE` — a newer one was vouched for; `SOURCE_CONFLICT` — another job writes at the same time, again and again
 */
export async function vouch(options: VouchOptions, signal: AbortSignal): Promise<VouchResult> {
  const { destination, keys, expiresInHours } = options;
  if (expiresInHours <= 0 || expiresInHours > maxTimestampHours) {
    throw new RunnerError("VALIDITY", `a timestamp may be valid for up to ${maxTimestampHours} hours`, {
      hint: "choose another --expires",
      fields: { hours: expiresInHours },
    });
  }
  const own = keys.map((key) => key.public);
  const { release, rules } = await readNewest(options, own, signal);
  for (const rule of rules) assertRole(rule, own);
  const { stream, epoch, version, digest } = release;
  const issued = new Date(Math.floor(options.now.getTime() / 1000) * 1000);
  const expires = new Date(issued.getTime() + expiresInHours * 3_600_000);
  const timestamp = { stream, epoch, version, digest, issued, expires };
  const payload = writeTimestamp(timestamp);
  const lines = await Promise.all(keys.map((key) => signEnvelope(payload, key, signal)));
  const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
  for (let attempt = 0; attempt < 3; attempt++) {
    const there = await destination.read(
      layout.timestamp,
      { maxBytes: releaseLimits.timestampBytes },
      signal,
    );
    for (const rule of rules) assertNotTakenBack(release, there?.bytes, rule);
    const condition = there === undefined ? ({ absent: true } as const) : { version: there.version };
    if ((await destination.write(layout.timestamp, bytes, condition, signal)) !== "conflict")
      return { ...timestamp, signers: own.map(({ id }) => id), releaseExpires: release.expires };
  }
  throw new RunnerError(
    "SOURCE_CONFLICT",
    `somebody else vouches under ${destination.url} at the same time`,
    {
      hint: "let one job vouch for each stream",
    },
  );
}

async function readNewest(
  { destination, stream, trust, now, expected }: VouchOptions,
  own: readonly PublicKey[],
  signal: AbortSignal,
): Promise<{ readonly release: VerifiedStatement; readonly rules: readonly TimestampRule[] }> {
  const question = { source: destination, stream, now };
  let trusts: EnvironmentTrusts = new Map();
  const earlier = await readEarlier(
    destination,
    {
      stream,
      judge: async (bytes, claim) => {
        trusts = await resolveTrusts(trust, question, claim.environments, signal);
        return trustedIn(trusts, own)(bytes, claim);
      },
    },
    signal,
  );
  if (earlier === undefined) throw nothingPublished(destination.url);
  assertExpected(earlier, expected);
  const rules = [...trusts.values()].flatMap(({ timestamp }) => timestamp ?? []);
  if (rules.length > 0) return { release: earlier.statement, rules };
  throw new RunnerError("USAGE", "the trust has no timestamp role, so no runner would look for a timestamp", {
    hint: 'name the trust file of the runners with --trust, with "timestamp" in it',
  });
}

function assertRole({ keys, threshold }: TimestampRule, own: readonly PublicKey[]): void {
  const counted = keys.filter(({ id }) => own.some((key) => key.id === id)).length;
  if (counted >= threshold) return;
  throw new RunnerError(
    "USAGE",
    `${counted} of the ${threshold} keys that the trust's timestamp role asks for`,
    {
      hint: "name keys of that role with --key; those of releases do not count",
      fields: { counted, threshold },
    },
  );
}

/** What anybody else put there proves nothing, and is replaced. */
function assertNotTakenBack(
  release: VerifiedStatement,
  there: Buffer | undefined,
  rule: TimestampRule,
): void {
  const before = there === undefined ? undefined : readOrNone(there, rule);
  if (before?.stream === release.stream) assertNotStale(release, before);
}

function readOrNone(bytes: Buffer, rule: TimestampRule): Timestamp | undefined {
  try {
    return readVouched(bytes, rule);
  } catch (error) {
    if (error instanceof RunnerError) return undefined;
    throw error;
  }
}
