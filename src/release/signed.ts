import { RunnerError } from "../error.ts";
import { parseDigest } from "../migration/checksum.ts";
import type { Body, Engine } from "../migration/migration.ts";
import { sourceLimits } from "../source/source.ts";
import type { Source } from "../source/source.ts";
import { assertRunBytes, readBlob, readExact } from "./body.ts";
import { mapConcurrently } from "./concurrent.ts";
import { nothingPublished, readHead } from "./head.ts";
import type { Head } from "./head.ts";
import { requestTimestamp, whyStale } from "./freshness.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";
import { readPacked } from "./pack.ts";
import type { ReleaseContext, ReleaseProvider } from "./release.ts";
import { noKnownRoots, resolveTrust } from "./trust/anchor.ts";
import type { TrustAnchor } from "./trust/anchor.ts";
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
 * The signed releases under a prefix. What the bucket answers is believed only as far as `verify.ts` proves it,
 * and no object is read twice: the bytes that were verified are the bytes that are used. A small manifest is kept for
 * whoever asks for the same release again, such as a status that is looked at all day; its signatures never are.
 *
 * Requests: one for `head`, two more for `fetch` (its release and manifest; with an expected digest no head is read, else
 * a timestamp at the same time where the trust wants one), one for each body, or one for a pack of them.
 */
export function signedReleases(options: SignedOptions): ReleaseProvider {
  const head = new HeadReader(options.source);
  const kept: KeptManifest = { release: undefined };
  return {
    kind: "signed",
    stream: options.stream,
    url: options.source.url,
    head: async (signal) => (await head.read(signal))?.digest,
    fetch: async (context, signal) => {
      const digest = context.expected ?? (await head.take(signal))?.digest;
      if (digest === undefined) throw nothingPublished(options.source.url);
      const release = await fetchRelease(options, context, digest, signal, kept);
      if (release.stale?.code !== "STALE_RELEASE") return release;
      // the newer one may have been published, and vouched for, since the head was read
      const newest = (await head.take(signal))?.digest ?? digest;
      return newest === digest ? release : fetchRelease(options, context, newest, signal, kept);
    },
    bodies: async (release, bodies, signal) => {
      if (!isVerified(release))
        throw new RunnerError("INTERNAL", "bodies were asked of a release that was not verified");
      return fetchBodies(options.source, release, bodies, signal);
    },
  };
}

/** How long `fetch` may go on from what `head` has just been told, instead of asking the bucket again. */
const headReuseMs = 10_000;

/** Remembers the state of `head.json`, so that asking again costs an answer without a body. */
class HeadReader {
  readonly #source: Source;
  #last: { readonly version: string; readonly head: Head } | undefined;
  /** what `read` found, for the `take` that follows it in the same run */
  #fresh: { readonly head: Head | undefined; readonly at: number } | undefined;

  constructor(source: Source) {
    this.#source = source;
  }

  async read(signal: AbortSignal): Promise<Head | undefined> {
    const last = this.#last;
    const object = await this.#source.readIfChanged(
      layout.head,
      last?.version,
      { maxBytes: releaseLimits.headBytes },
      signal,
    );
    if (object === undefined) this.#last = undefined;
    else if (object !== "unchanged") this.#last = { version: object.version, head: readHead(object.bytes) };
    const head = object === "unchanged" ? last?.head : this.#last?.head;
    this.#fresh = { head, at: performance.now() };
    return head;
  }

  /** As `read`, without a request where one was made just before; each answer is taken once. */
  async take(signal: AbortSignal): Promise<Head | undefined> {
    const fresh = this.#fresh;
    const isRecent = fresh !== undefined && performance.now() - fresh.at < headReuseMs;
    const head = isRecent ? fresh.head : await this.read(signal);
    this.#fresh = undefined;
    return head;
  }
}

async function fetchRelease(
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
const keptBytes = 256 * 1024;

/** The release that was verified last. */
interface KeptManifest {
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

async function fetchBodies(
  source: Source,
  release: VerifiedRelease,
  bodies: readonly Body[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Buffer>> {
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
