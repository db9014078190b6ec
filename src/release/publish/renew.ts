import { RunnerError } from "../../error.ts";
import { formatDigest, sha256Hex } from "../../migration/checksum.ts";
import { assertExpected, readEarlier, signedByOneOf, trustedIn } from "./earlier.ts";
import type { EarlierRelease, Judge } from "./earlier.ts";
import { resolveTrusts } from "../trust/environment-trust.ts";
import { nothingPublished } from "../head.ts";
import { describeIssued, epochOf, isCurrent, issue, nextRank, nextStatement, readTerms } from "./issue.ts";
import type { IssuedRelease, IssueOutcome, Terms } from "./issue.ts";
import type { PublicKey } from "../trust/key.ts";
import { onlyKeys } from "../trust/signers.ts";
import { writeStatement } from "../statement.ts";
import type { VerifiedStatement } from "../verify.ts";

/** Which stream's newest release to give a new expiry, and in whose name. */
export interface RenewOptions extends Omit<Terms, "environments" | "epoch"> {
  /** default: those of the newest release */
  readonly environments?: readonly string[] | undefined;
  /** the release that must be the newest, where that is known from elsewhere than the bucket */
  readonly expected?: string | undefined;
  /** renew also what has more than half of its time left */
  readonly force?: boolean | undefined;
  /** everything but the writing */
  readonly dryRun?: boolean | undefined;
}

/** What a renewal came to: the new release, or the newest one where it is not yet time. */
export interface RenewResult extends IssuedRelease {
  readonly outcome: IssueOutcome;
  /** whether the head moved */
  readonly published: boolean;
}

/**
 * Issues the newest release of a stream again: next version, same manifest, same bodies, new expiry (trust.md 2.6).
 *
 * It may run every day, unattended: while more than half of the time is left nothing is written. Whoever renews on one
 * day (UTC; in one hour where less than 8 days are asked for) signs the same bytes, so signers on machines of their own
 * meet a threshold without waiting for each other.
 *
 * What is renewed must satisfy the trust itself, in every environment that it is or will be for; without a trust, each of
 * `keys` must have signed it. Else a bucket's writer with one stolen key could have the others sign whatever he likes. He can
 * still show an older release that was once the newest, and have that one renewed for databases that know no newer:
 * `expected` closes that.
 *
 * @throws RunnerError `RELEASE_NOT_FOUND` — there is nothing to renew; `THRESHOLD`, `RELEASE_REVOKED`, `WRONG_EPOCH` and the other codes of `verify.ts`
 * @throws RunnerError `UNEXPECTED_RELEASE`; `SOURCE_CONFLICT` — another publisher was faster; `VALIDITY` — longer than the trust allows
 */
export async function renewRelease(options: RenewOptions, signal: AbortSignal): Promise<RenewResult> {
  const { destination, keys } = options;
  const own = keys.map((key) => key.public);
  const earlier = await readNewest(options, own, signal);
  const { statement: before } = earlier;
  const terms = { ...options, environments: options.environments ?? before.environments };
  const trusts = await readTerms(terms, signal);
  const epoch = epochOf({}, trusts);
  if (options.force !== true && isCurrent(earlier, terms, epoch)) {
    const same = describeIssued(before, before.digest, before.signers);
    return { ...same, outcome: "unchanged", published: false };
  }
  const { manifestSha256, manifestSize, chain, source } = before;
  const content = { manifestSha256, manifestSize, chain, ...(source && { source }) };
  const statement = nextStatement(terms, content, nextRank(epoch, earlier), issueTime(earlier, options));
  const digest = formatDigest(sha256Hex(writeStatement(statement)));
  const result = describeIssued(
    statement,
    digest,
    own.map(({ id }) => id),
  );
  if (options.dryRun === true) return { ...result, outcome: "dry-run", published: false };
  const published = await issue(statement, { destination, keys }, trusts, earlier.headVersion, signal);
  return { ...result, outcome: published ? "published" : "unsigned", published };
}

const hourMs = 3_600_000;

/** Below that a whole day less would be felt. */
const fewDays = 8;

/**
 * The beginning of the day, of a short-lived release the hour, so that everybody who renews in it signs the same; never
 * before what is renewed.
 */
function issueTime({ statement }: EarlierRelease, { now, expiresInDays }: RenewOptions): Date {
  const step = expiresInDays < fewDays ? hourMs : 24 * hourMs;
  const begin = Math.floor(now.getTime() / step) * step;
  return new Date(Math.max(begin, statement.issued.getTime()));
}

async function readNewest(
  { destination, stream, trust, now, expected, environments = [] }: RenewOptions,
  own: readonly PublicKey[],
  signal: AbortSignal,
): Promise<EarlierRelease> {
  const question = { source: destination, stream, now };
  const judge: Judge = async (bytes, claim) => {
    if (trust === undefined) return signedByAll(own, await signedByOneOf(onlyKeys(own))(bytes, claim));
    const all = [...new Set([...claim.environments, ...environments])];
    const trusts = await resolveTrusts(trust, question, all, signal);
    return trustedIn(trusts, own)(bytes, claim);
  };
  const earlier = await readEarlier(destination, { stream, judge }, signal);
  if (earlier === undefined) throw nothingPublished(destination.url);
  assertExpected(earlier, expected);
  return earlier;
}

function signedByAll(keys: readonly PublicKey[], statement: VerifiedStatement): VerifiedStatement {
  const missing = keys.find(({ id }) => !statement.signers.includes(id));
  if (missing === undefined) return statement;
  throw new RunnerError("THRESHOLD", `the newest release is not signed by ${missing.id}`, {
    hint: "name the public keys of its signers with --trust",
  });
}
