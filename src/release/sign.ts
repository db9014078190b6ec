import { RunnerError } from "../error.ts";
import { formatDigest, parseDigest, sha256Hex } from "../migration/checksum.ts";
import type { Source, WritableSource } from "../source/source.ts";
import { readEnvelopes, signEnvelope } from "./envelope.ts";
import { signersOf } from "./signers.ts";
import { readHead } from "./head.ts";
import type { Signer } from "./key.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";
import { readStatement } from "./statement.ts";
import type { ReleaseStatement } from "./statement.ts";
import { ruleFor } from "./trust.ts";
import type { Trust } from "./trust.ts";
import { moveHead, uploadBundles } from "./upload.ts";

/** What to sign, and in whose name. */
export interface SignOptions {
  readonly destination: WritableSource;
  readonly stream: string;
  /** the release that the signer has looked at, `sha256:<hex>` */
  readonly digest: string;
  readonly keys: readonly [Signer, ...Signer[]];
  /** what runners will ask for: the head moves once the keys that have signed meet it */
  readonly trust: Trust;
}

/** Where a release stands after it was signed. */
export interface SignResult {
  readonly digest: string;
  readonly version: number;
  /** ids of the trusted keys that have signed so far */
  readonly signers: readonly string[];
  /** distinct trusted keys that are needed, over all environments of the release */
  readonly threshold: number;
  /** whether the head names the release now */
  readonly published: boolean;
}

/**
 * Adds signatures to a release that waits for them, and publishes it once they suffice.
 *
 * Signs the exact bytes of the statement that `digest` names, and no others. Repeating it changes nothing.
 *
 * @throws RunnerError `RELEASE_NOT_FOUND`, `UNEXPECTED_RELEASE`, `WRONG_STREAM`, and the codes of an envelope and a statement
 * @throws RunnerError `SOURCE_CONFLICT` — another release was published since this one was made
 */
export async function signRelease(options: SignOptions, signal: AbortSignal): Promise<SignResult> {
  const { destination, digest, keys, trust } = options;
  const { payload } = await readSigned(destination, digest, signal);
  const statement = readStatement(payload);
  if (statement.stream !== options.stream) {
    throw new RunnerError(
      "WRONG_STREAM",
      `the release is of the stream "${statement.stream}", not "${options.stream}"`,
      {
        hint: "check the destination's prefix, or name the stream with --stream",
        fields: { expected: options.stream, actual: statement.stream },
      },
    );
  }
  const lines = await Promise.all(keys.map((key) => signEnvelope(payload, key, signal)));
  await uploadBundles(destination, sha256Hex(payload), lines, signal);
  // counted over what is there now: another signer may have added a line at the same time
  const { envelopes } = await readSigned(destination, digest, signal);
  const signers = signersOf(envelopes, trust).map(({ id }) => id);
  const threshold = Math.max(
    ...statement.environments.map((environment) => ruleFor(trust, environment).threshold),
  );
  const isMet = signers.length >= threshold;
  if (isMet) await publish(destination, statement, digest, signal);
  return { digest, version: statement.version, signers, threshold, published: isMet };
}

async function readSigned(source: Source, digest: string, signal: AbortSignal) {
  const key = layout.release(parseDigest(digest) ?? "");
  const object = await source.read(key, { maxBytes: releaseLimits.releaseBytes }, signal);
  if (object === undefined) {
    throw new RunnerError("RELEASE_NOT_FOUND", `there is no release ${digest} under ${source.url}`, {
      hint: "check the digest and the prefix",
    });
  }
  const envelopes = readEnvelopes(object.bytes);
  const payload = envelopes[0]?.payload ?? Buffer.alloc(0);
  const actual = formatDigest(sha256Hex(payload));
  if (actual !== digest) {
    throw new RunnerError(
      "UNEXPECTED_RELEASE",
      "the source holds another release than the one asked for under its name",
      {
        fields: { expected: digest, actual },
      },
    );
  }
  return { envelopes, payload };
}

/** Moves the head from the release that this one follows; one that is there already stays. */
async function publish(
  destination: WritableSource,
  { epoch, version, previous }: ReleaseStatement,
  digest: string,
  signal: AbortSignal,
): Promise<void> {
  const there = await destination.read(layout.head, { maxBytes: releaseLimits.headBytes }, signal);
  const newest = there === undefined ? undefined : readHead(there.bytes);
  if (newest?.digest === digest) return;
  // a new epoch leaves out releases of the old one, so it follows none
  const follows = (newest?.digest ?? null) === previous || (newest !== undefined && newest.epoch < epoch);
  if (!follows) {
    throw new RunnerError(
      "SOURCE_CONFLICT",
      `another release was published under ${destination.url} since this one was made`,
      {
        hint: "publish the files again, and sign that release",
        fields: { newest: newest?.digest ?? null, previous },
      },
    );
  }
  await moveHead(destination, { epoch, version, digest }, there?.version, signal);
}
