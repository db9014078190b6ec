import { isDeepStrictEqual } from "node:util";

import { RunnerError } from "../../error.ts";
import { formatDigest, sha256Hex } from "../../migration/checksum.ts";
import type { WritableSource } from "../../source/source.ts";
import type { TrustAnchor } from "../trust/anchor.ts";
import type { EarlierRelease } from "./earlier.ts";
import { readEnvelopes, signEnvelope } from "../envelope.ts";
import { assertValidity, isMet, resolveTrusts } from "../trust/environment-trust.ts";
import type { EnvironmentTrusts } from "../trust/environment-trust.ts";
import type { Signer } from "../trust/key.ts";
import { layout } from "../layout.ts";
import { releaseLimits } from "../limits.ts";
import { check, nameText } from "../schema.ts";
import { writeStatement } from "../statement.ts";
import type { ReleaseStatement } from "../statement.ts";
import type { Trust } from "../trust/trust.ts";
import { moveHead, uploadBundles } from "./upload.ts";

/** In whose name a release is issued, for whom and for how long: the same whether its files are new or not. */
export interface Terms {
  /** prefix of one stream */
  readonly destination: WritableSource;
  readonly stream: string;
  readonly environments: readonly string[];
  readonly expiresInDays: number;
  /** raised after a stolen key has published; versions begin again at 1. Default: the trust's, else the head's */
  readonly epoch?: number | undefined;
  /** each signs; nobody where the first signature is made by another tool */
  readonly keys: readonly Signer[];
  /** what runners will ask for: the head moves only when it is met. Also names the signers of earlier releases */
  readonly trust?: TrustAnchor | undefined;
  readonly now: Date;
}

/**
 * `published`: the head names the release; `unchanged`: the newest release is just this, and nothing was written;
 * `unsigned`: written, but the head waits for more signatures; `dry-run`: nothing was written.
 */
export type IssueOutcome = "published" | "unchanged" | "unsigned" | "dry-run";

/** A release that was issued, or would be. */
export interface IssuedRelease {
  readonly digest: string;
  readonly epoch: number;
  readonly version: number;
  readonly environments: readonly string[];
  readonly expires: Date;
  /** ids of keys and identities */
  readonly signers: readonly string[];
  /** migrations in the release */
  readonly migrations: number;
  /** `3:60f4…`, for `wait --expect-chain` */
  readonly chain: ReleaseStatement["chain"];
}

const dayMs = 86_400_000;

/**
 * Whom the runners of the release's environments trust; of none where nothing was said.
 *
 * @throws RunnerError `USAGE` — a name that none can be, no environment; `VALIDITY` — longer than they allow
 */
export async function readTerms(
  { destination, stream, environments, expiresInDays, trust, now }: Omit<Terms, "keys">,
  signal: AbortSignal,
): Promise<EnvironmentTrusts> {
  for (const name of [stream, ...environments])
    check(nameText, name, `the name ${JSON.stringify(name)}`, "USAGE");
  if (environments.length === 0) throw new RunnerError("USAGE", "a release needs at least one environment");
  const question = { source: destination, stream, now };
  const trusts =
    trust === undefined
      ? new Map<string, Trust>()
      : await resolveTrusts(trust, question, environments, signal);
  assertValidity(expiresInDays, environments, trusts);
  return trusts;
}

/**
 * Whether a release of the same files under these terms would say nothing new. One that has lost half of its time, or
 * lacks one of our signatures, is made anew, so that whoever issues regularly never lets a release expire.
 */
export function isCurrent(
  { head, statement }: EarlierRelease,
  { keys, environments, expiresInDays, now }: Terms,
  epoch: number | undefined,
): boolean {
  const validityLeftMs = statement.expires.getTime() - now.getTime();
  return (
    head.digest === statement.digest &&
    validityLeftMs >= (expiresInDays * dayMs) / 2 &&
    (epoch ?? statement.epoch) === statement.epoch &&
    keys.every((key) => statement.signers.includes(key.public.id)) &&
    isDeepStrictEqual(environments.toSorted(), statement.environments.toSorted())
  );
}

/** The epoch that was asked for, or else the one that the trust takes alone; undefined: the head's. */
export function epochOf({ epoch }: Pick<Terms, "epoch">, trusts: EnvironmentTrusts): number | undefined {
  if (epoch !== undefined) return epoch;
  const wanted = [...trusts.values()].flatMap((trust) => trust.epoch ?? []);
  return wanted.length === 0 ? undefined : Math.max(...wanted);
}

/** What the release of such a rank says. */
export function nextStatement(
  { stream, environments, expiresInDays }: Pick<Terms, "stream" | "environments" | "expiresInDays">,
  content: Pick<ReleaseStatement, "manifestSha256" | "manifestSize" | "chain" | "source">,
  rank: Pick<ReleaseStatement, "epoch" | "version" | "previous">,
  at: Date,
): ReleaseStatement {
  const issued = new Date(Math.floor(at.getTime() / 1000) * 1000);
  return {
    stream,
    ...rank,
    ...content,
    environments,
    issued,
    expires: new Date(issued.getTime() + expiresInDays * dayMs),
  };
}

/**
 * The place of the release after `earlier`.
 *
 * @throws RunnerError `USAGE` — a lower epoch; one that does not follow the newest in the same epoch; no version left
 */
export function nextRank(
  wanted: number | undefined,
  earlier: EarlierRelease | undefined,
): Pick<ReleaseStatement, "epoch" | "version" | "previous"> {
  if (earlier === undefined) return { epoch: wanted ?? 1, version: 1, previous: null };
  const { epoch, version, digest } = earlier.statement;
  if (wanted !== undefined && wanted < epoch) {
    throw new RunnerError("USAGE", `epoch ${wanted} is below the head's, ${epoch}`, {
      hint: "an epoch only grows",
    });
  }
  if (wanted !== undefined && wanted > epoch) return { epoch: wanted, version: 1, previous: null };
  if (earlier.head.digest !== digest) {
    throw new RunnerError(
      "USAGE",
      "nobody known signed the newest release, so what does not continue it begins an epoch of its own",
      {
        hint: `publish with --epoch ${Math.max(epoch, earlier.head.epoch) + 1}`,
      },
    );
  }
  if (version === Number.MAX_SAFE_INTEGER) {
    throw new RunnerError("USAGE", "no version is left in this epoch", {
      hint: `publish with --epoch ${epoch + 1}`,
    });
  }
  return { epoch, version: version + 1, previous: digest };
}

/**
 * Signs the statement, adds the lines to those that are there, and moves the head once they suffice.
 *
 * @param headVersion - state of `head.json` that the release was made from; undefined: absent
 * @returns whether the head names the release now
 * @throws RunnerError `SOURCE_CONFLICT` — another release was published meanwhile
 */
export async function issue(
  statement: ReleaseStatement,
  { destination, keys }: Pick<Terms, "destination" | "keys">,
  trusts: EnvironmentTrusts,
  headVersion: string | undefined,
  signal: AbortSignal,
): Promise<boolean> {
  if (keys.length === 0) return false;
  const payload = writeStatement(statement);
  const sha256 = sha256Hex(payload);
  const lines = await Promise.all(keys.map((key) => signEnvelope(payload, key, signal)));
  const own = keys.map((key) => key.public);
  await uploadBundles(destination, sha256, lines, own, signal);
  const ours = readEnvelopes(Buffer.from(lines.join("\n")));
  // a signer of another machine may have signed the same statement
  if (!isMet(ours, trusts) && !isMet(await readLines(destination, sha256, signal), trusts)) return false;
  const { epoch, version } = statement;
  await moveHead(destination, { epoch, version, digest: formatDigest(sha256) }, headVersion, signal);
  return true;
}

/** A release as it is told, by what its statement says. */
export function describeIssued(
  statement: ReleaseStatement,
  digest: string,
  signers: readonly string[],
): IssuedRelease {
  const { epoch, version, environments, expires, chain } = statement;
  return { digest, epoch, version, environments, expires, signers, migrations: chain.length, chain };
}

async function readLines(destination: WritableSource, sha256: string, signal: AbortSignal) {
  const limit = { maxBytes: releaseLimits.releaseBytes };
  const there = await destination.read(layout.release(sha256), limit, signal);
  return there === undefined ? [] : readEnvelopes(there.bytes);
}
