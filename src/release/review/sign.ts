import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { WritableSource } from "../../source/source.ts";
import type { TrustAnchor } from "../trust/anchor.ts";
import { readEnvelopes, signEnvelope } from "../envelope.ts";
import type { Envelope } from "../envelope.ts";
import { isMet, knownSigners, resolveTrusts } from "../trust/environment-trust.ts";
import type { EnvironmentTrusts } from "../trust/environment-trust.ts";
import { assertSigns } from "./foreign-bundle.ts";
import type { Head } from "../head.ts";
import type { Signer } from "../trust/key.ts";
import { isRefusal } from "../refusal.ts";
import { onlyKeys, signersOf } from "../trust/signers.ts";
import type { KnownSigners } from "../trust/signers.ts";
import type { ReleaseStatement } from "../statement.ts";
import { readHeadOf, readStoredLines } from "./stored-release.ts";
import type { StoredLines } from "./stored-release.ts";
import { ruleFor } from "../trust/trust.ts";
import { moveHead, uploadBundles } from "../publish/upload.ts";

/** What to sign, and in whose name. */
export interface SignOptions {
  readonly destination: WritableSource;
  /** default: what the release says of itself */
  readonly stream?: string | undefined;
  /** the release that the signer has looked at, `sha256:<hex>` */
  readonly digest: string;
  readonly keys: readonly Signer[];
  /** lines that other tools have made over the same statement, see `readForeignBundles` */
  readonly bundles?: readonly string[] | undefined;
  /** what runners will ask for: the head moves once those that have signed meet it, and not without it */
  readonly trust?: TrustAnchor | undefined;
  readonly now: Date;
}

/** Where a release stands after it was signed. */
export interface SignResult {
  readonly digest: string;
  readonly stream: string;
  readonly epoch: number;
  readonly version: number;
  /** ids of those that have signed so far and count */
  readonly signers: readonly string[];
  /** signers that are needed, of the environment that asks for most; null without a trust */
  readonly threshold: number | null;
  /** of each environment of the release; empty without a trust */
  readonly environments: readonly Standing[];
  /** lines that were added, or were to be, and count in no environment */
  readonly uncounted: number;
  /** whether the head names the release now */
  readonly published: boolean;
}

/** What is still missing for one environment. */
export interface Standing {
  readonly environment: string;
  readonly counted: number;
  readonly threshold: number;
}

/**
 * Adds signatures to a release that waits for them, and publishes it once they suffice in every environment.
 *
 * Signs the exact bytes of the statement that `digest` names, and no others. Repeating it changes nothing.
 *
 * @throws RunnerError `RELEASE_NOT_FOUND`, `UNEXPECTED_RELEASE`, `WRONG_STREAM`, `RELEASE_EXPIRED`, and the codes of an envelope and a statement
 * @throws RunnerError `SOURCE_CONFLICT` — another release was published since this one was made; `SEQ` — its version or its epoch is not the next
 * @throws RunnerError `PAYLOAD_DIFFERS`, `BUNDLE` — see `assertSigns`; the codes of the keys' stores
 */
export async function signRelease(options: SignOptions, signal: AbortSignal): Promise<SignResult> {
  const { destination, digest, keys, trust, now, bundles = [] } = options;
  const [stored, newest] = await Promise.all([
    readStoredLines(destination, digest, signal),
    readNewest(destination, signal),
  ]);
  const { payload, statement } = stored;
  assertSignable(stored, options, newest);
  const question = { source: destination, stream: statement.stream, now };
  const trusts: EnvironmentTrusts =
    trust === undefined ? new Map() : await resolveTrusts(trust, question, statement.environments, signal);
  assertNextEpoch(statement, newest, trusts);
  const own = keys.map((key) => key.public);
  for (const line of bundles) assertSigns(line, payload, knownSigners(trusts, own), "the bundle");
  const made = await Promise.all(keys.map((key) => signEnvelope(payload, key, signal)));
  const lines = [...made, ...bundles];
  await uploadBundles(destination, sha256Hex(payload), lines, own, signal);
  // counted over what is there now: another signer may have added a line at the same time
  const { envelopes } = await readStoredLines(destination, digest, signal);
  const published = trusts.size > 0 && isMet(envelopes, trusts);
  if (published) await publish(destination, statement, digest, signal);
  const all = [...trusts.values()];
  const environments = [...trusts].map(([environment, one]) => ({
    environment,
    counted: signersOf(envelopes, one).length,
    threshold: ruleFor(one, environment).threshold,
  }));
  return {
    digest,
    stream: statement.stream,
    epoch: statement.epoch,
    version: statement.version,
    signers: whoCounts(envelopes, trust === undefined ? [onlyKeys(own)] : all),
    threshold: trust === undefined ? null : Math.max(...environments.map(({ threshold }) => threshold)),
    environments,
    uncounted:
      trust === undefined
        ? 0
        : lines.filter((line) => whoCounts(readEnvelopes(Buffer.from(line)), all).length === 0).length,
    published,
  };
}

/** Ids of those that signed and count for one of these, in the order of their lines. */
function whoCounts(envelopes: readonly Envelope[], trusts: readonly KnownSigners[]): readonly string[] {
  const signers = envelopes.flatMap((envelope) => trusts.flatMap((trust) => signersOf([envelope], trust)));
  return [...new Set(signers.map(({ id }) => id))];
}

/**
 * Which release the head names, by that one's own numbers: those in the head are of whoever wrote the bucket last, who could
 * lead a signer to close the stream by the highest version there is.
 */
async function readNewest(destination: WritableSource, signal: AbortSignal): Promise<Head | undefined> {
  const there = await readHeadOf(destination, signal);
  if (there === undefined) return undefined;
  const { digest } = there.head;
  try {
    const { epoch, version } = (await readStoredLines(destination, digest, signal)).statement;
    return { epoch, version, digest };
  } catch (error) {
    // what nobody can read, nobody has signed as the one before either
    if (isRefusal(error)) return there.head;
    throw error;
  }
}

/** Everything that would make a signature useless is found before it is made. */
function assertSignable(
  { statement, digest }: StoredLines,
  { stream, destination, now }: SignOptions,
  newest: Head | undefined,
): void {
  if (stream !== undefined && statement.stream !== stream) {
    throw new RunnerError(
      "WRONG_STREAM",
      `the release is of the stream "${statement.stream}", not "${stream}"`,
      {
        hint: "check the destination's prefix, or name the stream with --stream",
        fields: { expected: stream, actual: statement.stream },
      },
    );
  }
  if (now >= statement.expires) {
    throw new RunnerError(
      "RELEASE_EXPIRED",
      `the release expired at ${statement.expires.toISOString()}, so no signature helps it`,
      { hint: "publish the files again, and sign that release" },
    );
  }
  if (!isNext(statement, digest, newest)) throw overtaken(destination.url, newest, statement);
  assertNextVersion(statement, digest, newest);
}

/** A version far above the last one would leave no room for those to come (TUF's fast-forward attack). */
function assertNextVersion(
  { epoch, version }: ReleaseStatement,
  digest: string,
  newest: Head | undefined,
): void {
  if (newest?.digest === digest) return;
  const next = newest === undefined || newest.epoch < epoch ? 1 : newest.version + 1;
  if (version === next) return;
  throw new RunnerError("SEQ", `the release says version ${version}, and the next one is ${next}`, {
    hint: "find out who signed it: publish numbers releases without gaps",
    fields: { expected: next, actual: version },
  });
}

/** As {@link assertNextVersion}, for what comes before a version. Where the trust says which epoch it takes, that is it. */
function assertNextEpoch(
  { epoch }: ReleaseStatement,
  newest: Head | undefined,
  trusts: EnvironmentTrusts,
): void {
  const next = (newest?.epoch ?? 0) + 1;
  if (epoch <= next || [...trusts.values()].some((trust) => trust.epoch === epoch)) return;
  throw new RunnerError("SEQ", `the release says epoch ${epoch}, and the next one is ${next}`, {
    hint: "find out who signed it; where this epoch is meant, it is the trust's to say first",
    fields: { expected: next, actual: epoch },
  });
}

/** Moves the head from the release that this one follows; one that is there already stays. */
async function publish(
  destination: WritableSource,
  statement: ReleaseStatement,
  digest: string,
  signal: AbortSignal,
): Promise<void> {
  const there = await readHeadOf(destination, signal);
  if (there?.head.digest === digest) return;
  if (!isNext(statement, digest, there?.head)) throw overtaken(destination.url, there?.head, statement);
  const { epoch, version } = statement;
  await moveHead(destination, { epoch, version, digest }, there?.version, signal);
}

/** Whether the head names this release, or the one that it follows. */
function isNext({ epoch, previous }: ReleaseStatement, digest: string, newest: Head | undefined): boolean {
  if (newest === undefined) return previous === null;
  // a new epoch leaves out releases of the old one, so it follows none
  return newest.digest === digest || newest.digest === previous || newest.epoch < epoch;
}

function overtaken(url: string, newest: Head | undefined, { previous }: ReleaseStatement): RunnerError {
  return new RunnerError(
    "SOURCE_CONFLICT",
    `another release was published under ${url} since this one was made`,
    {
      hint: "publish the files again, and sign that release",
      fields: { newest: newest?.digest ?? null, previous },
    },
  );
}
