import { RunnerError } from "../error.ts";
import { formatDigest, sha256Hex } from "../migration/checksum.ts";
import type { Engine, Migration } from "../migration/migration.ts";
import { emptyChain, nextChain } from "./chain.ts";
import { readEnvelopes } from "./envelope.ts";
import type { Envelope } from "./envelope.ts";
import { signersOf, whyNoIdentity } from "./trust/signers.ts";
import { assertNotBelow } from "./high-water-mark.ts";
import { clockToleranceMs } from "./limits.ts";
import { readManifest } from "./manifest.ts";
import type { Manifest } from "./manifest.ts";
import type { HighWaterMark, Release, ReleaseRank } from "./release.ts";
import { readStatement } from "./statement.ts";
import type { ReleaseStatement } from "./statement.ts";
import { ruleFor } from "./trust/trust.ts";
import type { Trust } from "./trust/trust.ts";

/** What a release is judged by, besides its own bytes. */
export interface Expectations {
  readonly stream: string;
  readonly environment: string;
  readonly engine: Engine;
  readonly trust: Trust;
  readonly highWaterMark: HighWaterMark | undefined;
  /** digest that the caller, or else the head, named */
  readonly expected: string | undefined;
  /** one reading for the whole decision (TUF 5.1) */
  readonly now: Date;
}

const statementProof: unique symbol = Symbol("verified statement");
const releaseProof: unique symbol = Symbol("verified release");

/** A statement with enough good signatures that is meant for us, now. Only {@link verifyStatement} makes one. */
export interface VerifiedStatement extends ReleaseStatement {
  /** `sha256:<hex>` of the signed bytes: the release's name */
  readonly digest: string;
  /** ids of the keys that counted */
  readonly signers: readonly string[];
  readonly engine: Engine;
  readonly [statementProof]: true;
}

/** A release that may be planned with. Only {@link verifyManifest} makes one. */
export interface VerifiedRelease extends Release {
  readonly kind: "signed";
  readonly rank: ReleaseRank;
  readonly expires: Date;
  readonly previous: string | null;
  readonly manifest: Pick<Manifest, "format" | "parser" | "pack">;
  readonly [releaseProof]: true;
}

/** Whether a release came out of {@link verifyManifest}. */
export function isVerified(release: Release): release is VerifiedRelease {
  return releaseProof in release;
}

/**
 * Steps 4 to 8 of trust.md 2.5: signatures, then the statement, then whether it is for us. No I/O.
 *
 * @param bytes - the release object, one bundle a line
 * @throws RunnerError the codes of the steps, in their order
 */
export function verifyStatement(bytes: Buffer, expectations: Expectations): VerifiedStatement {
  const { trust, environment, stream, now } = expectations;
  // 2.5.4: one payload over all lines; distinct keys are counted, not lines and not the ids they claim
  const envelopes = readEnvelopes(bytes);
  const signers = signersOf(envelopes, trust);
  const rule = ruleFor(trust, environment);
  if (signers.length < rule.threshold) throw tooFewSigners(signers.length, rule.threshold, envelopes, trust);
  const payload = envelopes[0]?.payload ?? Buffer.alloc(0);
  // 2.5.6: only now is the payload parsed, from the very bytes that were verified
  const statement = readStatement(payload);
  const digest = formatDigest(sha256Hex(payload));
  // 2.5.7: for us, and of this time
  assertForUs(statement, stream, environment);
  assertEpoch(statement, trust);
  assertTimes(statement, now, rule.maxValidityDays);
  assertNotRevoked(statement, digest, trust);
  // 2.5.8: not older than what the database knows, and the one that was asked for
  assertNotBelow({ ...statement, digest }, expectations.highWaterMark);
  if (expectations.expected !== undefined && expectations.expected !== digest) {
    throw new RunnerError(
      "UNEXPECTED_RELEASE",
      "the source holds another release than the one asked for under its name",
      {
        fields: { expected: expectations.expected, actual: digest },
      },
    );
  }
  return {
    ...statement,
    digest,
    signers: signers.map(({ id }) => id),
    engine: expectations.engine,
    [statementProof]: true,
  };
}

/**
 * Step 9 of trust.md 2.5: the manifest that the statement names, and its chain. No I/O.
 *
 * @throws RunnerError `MANIFEST_DIGEST`, the codes of `readManifest`, `WRONG_STREAM`, `WRONG_ENGINE`, `SEQ`, `CHAIN`, `CHAIN_HEAD`
 */
export function verifyManifest(statement: VerifiedStatement, bytes: Buffer): VerifiedRelease {
  // 2.5.9: length and digest before a single byte is parsed
  if (bytes.length !== statement.manifestSize || sha256Hex(bytes) !== statement.manifestSha256) {
    throw new RunnerError("MANIFEST_DIGEST", "the manifest is not the one that was signed", {
      fields: { expected: formatDigest(statement.manifestSha256), actual: formatDigest(sha256Hex(bytes)) },
    });
  }
  const manifest = readManifest(bytes);
  assertManifestOf(statement, manifest);
  return {
    kind: "signed",
    stream: statement.stream,
    engine: manifest.engine,
    digest: statement.digest,
    rank: { epoch: statement.epoch, version: statement.version },
    previous: statement.previous,
    migrations: manifest.migrations,
    repeatable: manifest.repeatable,
    ...(manifest.registry && { registry: manifest.registry }),
    expires: statement.expires,
    signers: statement.signers,
    warnings: [],
    manifest,
    [releaseProof]: true,
  };
}

/**
 * What step 9 asks of a manifest besides its bytes; also before somebody signs it.
 *
 * @throws RunnerError `WRONG_STREAM`, `WRONG_ENGINE`, `SEQ`, `CHAIN`, `CHAIN_HEAD`
 */
export function assertManifestOf(
  statement: ReleaseStatement & Pick<VerifiedStatement, "engine">,
  manifest: Manifest,
): void {
  assertManifestForUs(manifest, statement);
  assertChain(manifest.migrations, statement);
}

/**
 * Step 8 once more, for the mark that was read under the lease. A plain folder passes only where nothing signed was ever begun.
 *
 * @throws RunnerError `ROLLBACK`, `EQUIVOCATION`, `UNSIGNED_REFUSED`
 */
export function checkHighWaterMark(release: Release, mark: HighWaterMark | null | undefined): void {
  if (mark === null || mark === undefined) return;
  if (!isVerified(release)) {
    throw new RunnerError(
      "UNSIGNED_REFUSED",
      "a signed release was begun on this database, so only signed ones are taken",
      {
        hint: "publish these files as a release and name its key with --trust",
      },
    );
  }
  assertNotBelow({ ...release.rank, digest: release.digest, previous: release.previous }, mark);
}

const dayMs = 86_400_000;

function tooFewSigners(
  counted: number,
  threshold: number,
  envelopes: readonly Envelope[],
  trust: Trust,
): RunnerError {
  const why = whyNoIdentity(envelopes, trust);
  const hint =
    counted === 0
      ? "compare the key ids of release show with the keys of the trust"
      : "let another key holder sign this release";
  return new RunnerError("THRESHOLD", `${counted} of the ${threshold} trusted signatures that are needed`, {
    hint: why === undefined ? hint : `a line signed by a certificate counts nothing: ${why}`,
    fields: { counted, threshold, lines: envelopes.length },
  });
}

function assertForUs(statement: ReleaseStatement, stream: string, environment: string): void {
  if (statement.stream !== stream) {
    throw new RunnerError(
      "WRONG_STREAM",
      `the release is of the stream "${statement.stream}", not "${stream}"`,
      {
        hint: "check the source's prefix, or name the stream with --stream",
        fields: { expected: stream, actual: statement.stream },
      },
    );
  }
  if (!statement.environments.includes(environment)) {
    throw new RunnerError(
      "WRONG_ENVIRONMENT",
      `the release is for ${statement.environments.join(", ")}, not for "${environment}"`,
      {
        hint: "publish it with --environment, or name this database's environment with --environment",
        fields: { expected: environment, actual: statement.environments.join(",") },
      },
    );
  }
}

/** The way out after a stolen key has signed the highest version there is: trust begins anew, and so do versions. */
function assertEpoch({ epoch }: ReleaseStatement, trust: Trust): void {
  if (trust.epoch === null || trust.epoch === epoch) return;
  throw new RunnerError(
    "WRONG_EPOCH",
    `the release is of epoch ${epoch}, and the trust takes epoch ${trust.epoch} only`,
    {
      hint:
        epoch < trust.epoch
          ? `publish with --epoch ${trust.epoch}, following the last good release with --follow`
          : "find out who signed it; a new epoch begins in the trust first",
      fields: { expected: trust.epoch, actual: epoch },
    },
  );
}

function assertTimes({ issued, expires }: ReleaseStatement, now: Date, maxValidityDays: number): void {
  if (issued.getTime() > now.getTime() + clockToleranceMs) {
    throw new RunnerError(
      "ISSUED_IN_FUTURE",
      `the release was issued at ${issued.toISOString()}, which is to come`,
      {
        hint: "check the clocks of this machine and of the publisher",
        fields: { issued: issued.toISOString(), now: now.toISOString() },
      },
    );
  }
  const days = (expires.getTime() - issued.getTime()) / dayMs;
  if (days <= 0 || days > maxValidityDays) {
    throw new RunnerError(
      "VALIDITY",
      `the release is valid for ${Math.ceil(days)} days, and 1 to ${maxValidityDays} are allowed`,
      {
        hint: "publish it with another --expires",
        fields: { days, maxValidityDays },
      },
    );
  }
}

function assertNotRevoked(
  { version }: ReleaseStatement,
  digest: string,
  { revoked, minVersion }: Trust,
): void {
  if (!revoked.has(digest) && version >= minVersion) return;
  throw new RunnerError("RELEASE_REVOKED", `release ${version} was revoked by the trust of this target`, {
    hint: "publish the release that takes its place: lockkeeper publish --follow <the last good release>",
    fields: { digest, version, minVersion },
  });
}

function assertManifestForUs(
  manifest: Manifest,
  statement: ReleaseStatement & Pick<VerifiedStatement, "engine">,
): void {
  if (manifest.stream !== statement.stream) {
    throw new RunnerError(
      "WRONG_STREAM",
      `the manifest is of the stream "${manifest.stream}", not "${statement.stream}"`,
    );
  }
  if (manifest.engine !== statement.engine) {
    throw new RunnerError(
      "WRONG_ENGINE",
      `the release is for ${manifest.engine}, and this database is ${statement.engine}`,
      {
        fields: { expected: statement.engine, actual: manifest.engine },
      },
    );
  }
}

/** trust.md 2.2: what the signer computed is computed again, link by link. */
function assertChain(migrations: readonly Migration[], { stream, chain }: ReleaseStatement): void {
  let head = emptyChain(stream);
  for (const [index, migration] of migrations.entries()) {
    if (migration.seq !== index + 1) {
      throw new RunnerError("SEQ", `"${migration.path}" is number ${migration.seq} in place ${index + 1}`);
    }
    head = nextChain(head, migration);
    if (migration.chain !== head) {
      throw new RunnerError("CHAIN", `the chain of the manifest breaks at "${migration.path}"`);
    }
  }
  if (migrations.length !== chain.length || head !== chain.head) {
    throw new RunnerError("CHAIN_HEAD", "the manifest does not end where the signed statement says", {
      fields: { expected: chain.length, actual: migrations.length },
    });
  }
}
