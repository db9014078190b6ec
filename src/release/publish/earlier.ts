import { RunnerError } from "../../error.ts";
import { parseDigest, sha256Hex } from "../../migration/checksum.ts";
import type { Engine } from "../../migration/migration.ts";
import type { Source } from "../../source/source.ts";
import { readExact } from "../body.ts";
import { readEnvelopes } from "../envelope.ts";
import { knownSigners } from "../trust/environment-trust.ts";
import type { EnvironmentTrusts } from "../trust/environment-trust.ts";
import { readHead } from "../head.ts";
import type { Head } from "../head.ts";
import type { PublicKey } from "../trust/key.ts";
import { layout } from "../layout.ts";
import { releaseLimits } from "../limits.ts";
import { readManifest } from "../manifest.ts";
import type { KnownSigners } from "../trust/signers.ts";
import { readStatement } from "../statement.ts";
import { ruleFor } from "../trust/trust.ts";
import type { Trust } from "../trust/trust.ts";
import { verifyManifest, verifyStatement } from "../verify.ts";
import type { Expectations, VerifiedRelease, VerifiedStatement } from "../verify.ts";

/** The release that a new one continues. */
export interface EarlierRelease {
  readonly head: Head;
  /** state of `head.json`, for the compare-and-swap */
  readonly headVersion: string;
  /** the release object: one bundle a line */
  readonly bytes: Buffer;
  readonly statement: VerifiedStatement;
  readonly release: VerifiedRelease;
}

/** What a release must be to be continued. */
export interface EarlierExpectations {
  readonly stream: string;
  /** default: what its manifest says */
  readonly engine?: Engine | undefined;
  /** digest of the release to continue in place of the newest: the way back after a stolen key has published */
  readonly follow?: string | undefined;
  readonly judge: Judge;
}

/**
 * Verifies a release that is to be continued. `claim` is what it says of itself, unproven: it may choose by whom and as of
 * when the bytes are judged, and nothing more.
 */
export type Judge = (bytes: Buffer, claim: Claim) => VerifiedStatement | Promise<VerifiedStatement>;

/** What a judge needs besides trust: as {@link Expectations}, of the time when the release was issued. */
export interface Claim extends Omit<Expectations, "trust" | "environment"> {
  readonly environments: readonly string[];
}

/**
 * The newest release under a prefix, verified by the judge, whatever its time; `undefined` for an empty prefix.
 *
 * It is verified though it is only continued: whoever writes the bucket could else choose the order that the next signer signs.
 *
 * @throws RunnerError `USAGE` — `follow` is no digest; `WRONG_STREAM` — the prefix is of another stream; what the judge refuses it for; the codes of `verify.ts`
 */
export async function readEarlier(
  source: Source,
  expectations: EarlierExpectations,
  signal: AbortSignal,
): Promise<EarlierRelease | undefined> {
  const object = await source.read(layout.head, { maxBytes: releaseLimits.headBytes }, signal);
  if (object === undefined) return undefined;
  const head = readHead(object.bytes);
  const digest = expectations.follow ?? head.digest;
  const sha256 = parseDigest(digest);
  if (sha256 === undefined) {
    throw new RunnerError("USAGE", "--follow: expected a release's digest, sha256:…, or none", {
      hint: "lockkeeper release show tells which release is the newest, and which was before it",
    });
  }
  const bytes = await readPart(source, layout.release(sha256), releaseLimits.releaseBytes, signal);
  // Read before its signatures are counted, to say of which stream it is and to judge it by its own time; refusing needs no proof.
  const claimed = readStatement(readEnvelopes(bytes)[0]?.payload ?? Buffer.alloc(0));
  const { engine, judge, stream } = expectations;
  if (claimed.stream !== stream) {
    throw new RunnerError(
      "WRONG_STREAM",
      `${source.url} holds the stream "${claimed.stream}", not "${stream}"`,
      {
        hint: "publish each stream under a prefix of its own",
        fields: { expected: stream, actual: claimed.stream },
      },
    );
  }
  const statement = await judge(bytes, {
    stream,
    engine: engine ?? "postgres",
    environments: claimed.environments,
    highWaterMark: undefined,
    expected: digest,
    now: claimed.issued,
  });
  const manifest = await readPart(
    source,
    layout.manifest(statement.manifestSha256),
    statement.manifestSize,
    signal,
  );
  const judged = { ...statement, engine: engine ?? engineOf(statement, manifest) };
  return {
    head,
    headVersion: object.version,
    bytes,
    statement,
    release: verifyManifest(judged, manifest),
  };
}

/**
 * Judges by one good signature of these: enough to continue what one of us has begun.
 *
 * @throws RunnerError `THRESHOLD` — none of them signed it; the codes of `verify.ts`
 */
export function signedByOneOf(signers: KnownSigners): Judge {
  return (bytes, claim) => {
    const rule = { threshold: 1, maxValidityDays: Infinity };
    const trust: Trust = {
      ...signers,
      kind: "fixed",
      rule,
      release: new Map(),
      minVersion: 1,
      revoked: new Set<string>(),
      epoch: null,
      timestamp: null,
    };
    try {
      return verifyStatement(bytes, { ...claim, environment: claim.environments[0] ?? "", trust });
    } catch (error) {
      if (!(error instanceof RunnerError) || error.code !== "THRESHOLD") throw error;
      throw new RunnerError(
        "THRESHOLD",
        "none of the given keys signed the release that this one would continue",
        {
          hint: "name the public keys of the earlier signers with --trust",
          fields: error.fields,
          cause: error,
        },
      );
    }
  };
}

/**
 * Judges as the runners of each environment would, whatever its validity and expiry; tells also which of our `own` keys
 * have signed, whether those trust them or not. Of an environment that it is not for, its signers are judged all the same:
 * those who may sign for staging are not to choose what is renewed for production.
 *
 * @throws RunnerError the codes of `verify.ts`
 */
export function trustedIn(trusts: EnvironmentTrusts, own: readonly PublicKey[]): Judge {
  return (bytes, claim) => {
    const [first = ""] = claim.environments;
    for (const name of new Set([...claim.environments, ...trusts.keys()])) {
      const trust = trusts.get(name);
      if (trust === undefined) throw new RunnerError("INTERNAL", "no trust was read for an environment");
      const environment = claim.environments.includes(name) ? name : first;
      const rule = { ...ruleFor(trust, name), maxValidityDays: Infinity };
      verifyStatement(bytes, { ...claim, environment, trust: { ...trust, rule, release: new Map() } });
    }
    return signedByOneOf(knownSigners(trusts, own))(bytes, claim);
  };
}

/**
 * Holds the head to what is known from elsewhere than the bucket.
 *
 * @throws RunnerError `UNEXPECTED_RELEASE`
 */
export function assertExpected({ statement }: EarlierRelease, expected: string | undefined): void {
  if (expected === undefined || expected === statement.digest) return;
  throw new RunnerError("UNEXPECTED_RELEASE", "the source names another release as its newest", {
    hint: "find out who holds the wanted one back",
    fields: { expected, actual: statement.digest },
  });
}

/** Of a manifest that is the signed one; whether it is, is for `verifyManifest` to say. */
function engineOf({ manifestSha256, engine }: VerifiedStatement, manifest: Buffer): Engine {
  return sha256Hex(manifest) === manifestSha256 ? readManifest(manifest).engine : engine;
}

async function readPart(source: Source, key: string, size: number, signal: AbortSignal): Promise<Buffer> {
  const bytes = await readExact(source, key, size, signal);
  if (bytes !== undefined && bytes !== "longer") return bytes;
  throw new RunnerError(
    "RELEASE_NOT_FOUND",
    `${key}, which the newest release needs, ${bytes === undefined ? "is not" : "is too long"} under ${source.url}`,
    {
      hint: "restore the object, or publish to a new prefix",
    },
  );
}
