import { RunnerError } from "../error.ts";
import { parseDigest } from "../migration/checksum.ts";
import type { Body, Engine } from "../migration/migration.ts";
import { sourceLimits, type Source } from "../source/source.ts";
import { assertRunBytes, readBlob, readExact } from "./body.ts";
import { mapConcurrently } from "./concurrent.ts";
import { requestTimestamp, whyStale } from "./freshness.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";
import { readPacked } from "./pack.ts";
import type { Release, ReleaseContext } from "./release.ts";
import { noKnownRoots, resolveTrust, type TrustAnchor } from "./trust/anchor.ts";
import type { TimestampRule, Trust } from "./trust/trust.ts";
import { isVerified, verifyManifest, verifyStatement } from "./verify.ts";
import type { VerifiedRelease, VerifiedStatement } from "./verify.ts";

/** A prefix, and what its releases must be to be taken. */
export interface SignedOptions {
  readonly source: Source;
  readonly stream: string;
  readonly environment: string;
  readonly engine: Engine;
  readonly trust: TrustAnchor;
}

/**
 * Fetches the release of a digest, and believes of it what `verify.ts` proves.
 *
 * @param kept - the manifest that may be had again
 * @throws RunnerError `RELEASE_NOT_FOUND`, what the source throws, and what verification refuses
 */
export async function fetchSigned(
  options: SignedOptions,
  context: ReleaseContext,
  digest: string,
  signal: AbortSignal,
  kept: KeptManifest,
): Promise<VerifiedRelease> {
  const { source } = options;
  const sha256 = parseDigest(digest);
  if (sha256 === undefined) {
    throw new RunnerError(
      "RELEASE_NOT_FOUND",
      "the release asked for is not named by a digest sha256:<64 hex digits>",
      { hint: "publish prints it, and release show tells the newest" },
    );
  }
  const question = { ...options, known: context.knownRoots ?? noKnownRoots, now: context.now };
  const resolving = resolveTrust(options.trust, question, signal);
  const [{ trust, root }, release, timestamp] = await Promise.all([
    resolving,
    source.read(layout.release(sha256), { maxBytes: releaseLimits.releaseBytes }, signal),
    resolving.then((found) =>
      voucherOf(found.trust, context) ? requestTimestamp(source, signal) : undefined,
    ),
  ]);
  if (release === undefined) throw notThere(digest, "the release", source.url);
  const statement = verifyStatement(release.bytes, { ...options, ...context, trust, expected: digest });
  const verified = await withManifest(source, statement, signal, kept);
  const rule = voucherOf(trust, context);
  const stale = rule && whyStale(statement, timestamp, { rule, stream: options.stream, now: context.now });
  return { ...verified, ...(root !== null && { root }), ...(stale && { stale }) };
}

/** Bytes of a manifest that is kept: some thousand migrations are not, of each of a hundred targets. */
const keptBytes = 512 * 1024;

/** The release that was verified last. */
export interface KeptManifest {
  release: VerifiedRelease | undefined;
}

/** The digest is of the whole statement, which names the manifest by its own: for the same one it would be the same again. */
async function withManifest(
  source: Source,
  statement: VerifiedStatement,
  signal: AbortSignal,
  kept: KeptManifest,
): Promise<VerifiedRelease> {
  const { digest, manifestSha256, manifestSize, signers } = statement;
  if (kept.release?.digest === digest) return { ...kept.release, signers };
  const manifest = await readExact(source, layout.manifest(manifestSha256), manifestSize, signal);
  if (manifest === undefined) throw notThere(digest, "the manifest of the release", source.url);
  const verified = verifyManifest(statement, manifest === "longer" ? Buffer.alloc(0) : manifest);
  if (manifestSize <= keptBytes) kept.release = verified;
  return verified;
}

/**
 * A caller who names a digest has it from the publisher and past the bucket, so nothing newer can be held back from it:
 * what was asked for is what is taken. Only a head needs somebody who vouches that it is the newest.
 */
function voucherOf({ timestamp }: Trust, { expected }: ReleaseContext): TimestampRule | null {
  return expected === undefined ? timestamp : null;
}

/** Bodies of a verified release by their SHA-256; each is fetched once. */
export async function fetchBodies(
  source: Source,
  release: Release,
  bodies: readonly Body[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Buffer>> {
  if (!isVerified(release))
    throw new RunnerError("INTERNAL", "bodies were asked of a release that was not verified");
  const wanted = [...new Map(bodies.map((body) => [body.sha256, body])).values()];
  assertRunBytes(wanted);
  const found = await readPacked(source, release, wanted, signal);
  const rest = wanted.filter(({ sha256 }) => !found.has(sha256));
  const read = await mapConcurrently(rest, sourceLimits.concurrency, signal, async (body, stop) => {
    return [body.sha256, await readBlob(source, body, stop)] as const;
  });
  return new Map([...found, ...read]);
}

function notThere(digest: string, what: string, url: string): RunnerError {
  return new RunnerError("RELEASE_NOT_FOUND", `${what} asked for is not under ${url}`, {
    hint: "check the digest and the prefix, or publish again",
    fields: { digest },
  });
}
