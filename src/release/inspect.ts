import { RunnerError, toRunnerError } from "../error.ts";
import { noKnownRoots, resolveTrust } from "./anchor.ts";
import type { TrustAnchor } from "./anchor.ts";
import { formatDigest, parseDigest, sha256Hex } from "../migration/checksum.ts";
import type { Engine } from "../migration/migration.ts";
import { sourceLimits } from "../source/source.ts";
import type { Source } from "../source/source.ts";
import { readBlob, readExact } from "./body.ts";
import { mapConcurrently } from "./concurrent.ts";
import { readEnvelopes } from "./envelope.ts";
import { signersOf } from "./signers.ts";
import type { Envelope } from "./envelope.ts";
import { readHead } from "./head.ts";
import type { KeyKind } from "./key.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";
import { readManifest } from "./manifest.ts";
import type { Manifest } from "./manifest.ts";
import { bodiesOf, type Release } from "./release.ts";
import { readStatement } from "./statement.ts";
import type { ReleaseStatement } from "./statement.ts";
import { ruleFor } from "./trust.ts";
import type { Trust } from "./trust.ts";
import { verifyManifest, verifyStatement } from "./verify.ts";

/** Which release to look at, and what to judge it by. */
export interface InspectOptions {
  readonly source: Source;
  /** default: what the head names */
  readonly digest?: string | undefined;
  /** without it nothing is verified, only shown */
  readonly trust?: TrustAnchor | undefined;
  /** what a target would compare with; default: what the release says of itself */
  readonly stream?: string | undefined;
  readonly environment?: string | undefined;
  readonly engine?: Engine | undefined;
  /** fetch and check every body, down bodies too */
  readonly withBodies: boolean;
  readonly now: Date;
}

/** A release laid open for people: what it says, who signed it, what it changes, and whether it would be taken. */
export interface Inspection {
  readonly url: string;
  /** `sha256:<hex>` */
  readonly digest: string;
  /** whether the head names it */
  readonly isNewest: boolean;
  readonly statement: ReleaseStatement;
  readonly isExpired: boolean;
  readonly signatures: readonly InspectedSignature[];
  /** distinct trusted keys that are needed; null without a trust */
  readonly threshold: number | null;
  readonly verdict: Verdict;
  readonly manifest: Manifest;
  /** null where there is no release before, or it is gone */
  readonly changes: ReleaseChanges | null;
  /** bodies that were fetched and found as signed; null where they were not asked for */
  readonly bodies: { readonly count: number; readonly bytes: number } | null;
}

/** One line of the release. */
export interface InspectedSignature {
  /** `sha256:<hex>` of the key that it claims, or was proven, to be of; null where it claims none */
  readonly keyId: string | null;
  /** null for a key that is not in the trust */
  readonly kind: KeyKind | null;
  readonly isTrusted: boolean;
}

/** `unknown`: no trust was given. `refused` holds what a runner would answer. */
export type Verdict =
  | { readonly kind: "verified" }
  | { readonly kind: "refused"; readonly error: RunnerError }
  | { readonly kind: "unknown" };

/** What a release changes against the one before; labels of migrations. */
export interface ReleaseChanges {
  readonly previous: string;
  readonly previousVersion: number;
  readonly added: readonly string[];
  /** in the one before, and not in this at the same place with the same bytes: no database that has them will take this release */
  readonly rewritten: readonly string[];
  /** whose down body is another, new or gone */
  readonly downChanged: readonly string[];
}

/**
 * Reads a release and judges it as a runner would, but shows it also where it would be refused.
 *
 * @throws RunnerError `RELEASE_NOT_FOUND`, and what keeps it from being shown at all: `JSON_…`, `SCHEMA`, `BUNDLE`, `MANIFEST_DIGEST`…
 */
export async function inspectRelease(options: InspectOptions, signal: AbortSignal): Promise<Inspection> {
  const { source, now } = options;
  const newest = await readNewest(source, signal);
  const digest = options.digest ?? newest;
  if (digest === undefined) {
    throw new RunnerError("RELEASE_NOT_FOUND", `no release is published under ${source.url}`, {
      hint: "check the prefix, or publish",
    });
  }
  const shown = await readUnverified(source, digest, signal);
  const { statement, envelopes } = shown;
  const environment = options.environment ?? statement.environments[0] ?? "";
  const trust = await resolve(options, statement.stream, environment, signal);
  const known = trust instanceof RunnerError ? undefined : trust;
  return {
    url: source.url,
    digest,
    isNewest: digest === newest,
    statement,
    isExpired: now >= statement.expires,
    signatures: envelopes.map((envelope) => inspectSignature(envelope, known)),
    threshold: known === undefined ? null : ruleFor(known, environment).threshold,
    verdict: judge(options, trust, shown, environment),
    manifest: shown.manifest,
    changes: await readChanges(source, shown, signal),
    bodies: options.withBodies ? await checkBodies(source, shown.manifest, signal) : null,
  };
}

/** What a release object and its manifest say, held together by digests only. */
interface Shown {
  readonly digest: string;
  readonly bytes: Buffer;
  readonly envelopes: readonly Envelope[];
  readonly statement: ReleaseStatement;
  readonly manifestBytes: Buffer;
  readonly manifest: Manifest;
}

async function readNewest(source: Source, signal: AbortSignal): Promise<string | undefined> {
  const object = await source.read(layout.head, { maxBytes: releaseLimits.headBytes }, signal);
  return object === undefined ? undefined : readHead(object.bytes).digest;
}

async function readUnverified(source: Source, digest: string, signal: AbortSignal): Promise<Shown> {
  const sha256 = parseDigest(digest) ?? "";
  const object =
    sha256 === ""
      ? undefined
      : await source.read(layout.release(sha256), { maxBytes: releaseLimits.releaseBytes }, signal);
  if (object === undefined) throw notFound(`no release ${digest}`, source.url);
  const envelopes = readEnvelopes(object.bytes);
  const payload = envelopes[0]?.payload ?? Buffer.alloc(0);
  if (formatDigest(sha256Hex(payload)) !== digest) {
    throw new RunnerError(
      "UNEXPECTED_RELEASE",
      "the source holds another release than the one asked for under its name",
      {
        fields: { expected: digest, actual: formatDigest(sha256Hex(payload)) },
      },
    );
  }
  const statement = readStatement(payload);
  const manifestBytes = await readExact(
    source,
    layout.manifest(statement.manifestSha256),
    statement.manifestSize,
    signal,
  );
  if (manifestBytes === undefined) throw notFound("no manifest of this release", source.url);
  if (manifestBytes === "longer" || sha256Hex(manifestBytes) !== statement.manifestSha256) {
    throw new RunnerError("MANIFEST_DIGEST", "the manifest is not the one that was signed");
  }
  return {
    digest,
    bytes: object.bytes,
    envelopes,
    statement,
    manifestBytes,
    manifest: readManifest(manifestBytes),
  };
}

function inspectSignature(envelope: Envelope, trust: Trust | undefined): InspectedSignature {
  const [signer] = trust === undefined ? [] : signersOf([envelope], trust);
  if (signer !== undefined)
    return { keyId: signer.id, kind: "kind" in signer ? signer.kind : null, isTrusted: true };
  const claimed = Buffer.from(envelope.hint ?? "", "base64");
  return {
    keyId: claimed.length === 32 ? formatDigest(claimed.toString("hex")) : null,
    kind: null,
    isTrusted: false,
  };
}

/** A root that is refused is a verdict on every release under it, and the release is shown all the same. */
async function resolve(
  { source, stream, trust, now }: InspectOptions,
  ofRelease: string,
  environment: string,
  signal: AbortSignal,
): Promise<Trust | RunnerError | undefined> {
  if (trust === undefined) return undefined;
  const question = { source, stream: stream ?? ofRelease, environment, known: noKnownRoots, now };
  try {
    return (await resolveTrust(trust, question, signal)).trust;
  } catch (error) {
    if (error instanceof RunnerError && !error.code.startsWith("SOURCE_")) return error;
    throw error;
  }
}

function judge(
  options: InspectOptions,
  trust: Trust | RunnerError | undefined,
  shown: Shown,
  environment: string,
): Verdict {
  if (trust === undefined) return { kind: "unknown" };
  if (trust instanceof RunnerError) return { kind: "refused", error: trust };
  try {
    const statement = verifyStatement(shown.bytes, {
      stream: options.stream ?? shown.statement.stream,
      environment,
      engine: options.engine ?? shown.manifest.engine,
      trust,
      highWaterMark: undefined,
      expected: shown.digest,
      now: options.now,
    });
    verifyManifest(statement, shown.manifestBytes);
    return { kind: "verified" };
  } catch (error) {
    return { kind: "refused", error: toRunnerError(error) };
  }
}

/** The release before is named by its digest in this one, so it needs no signature of its own to be compared with. */
async function readChanges(
  source: Source,
  shown: Shown,
  signal: AbortSignal,
): Promise<ReleaseChanges | null> {
  const { previous } = shown.statement;
  if (previous === null) return null;
  const before = await readUnverified(source, previous, signal).catch((error: unknown) => {
    if (error instanceof RunnerError && error.code === "RELEASE_NOT_FOUND") return undefined;
    throw error;
  });
  if (before === undefined) return null;
  const now = shown.manifest.migrations;
  const then = before.manifest.migrations;
  return {
    previous,
    previousVersion: before.statement.version,
    added: now.slice(then.length).map(({ path }) => path),
    rewritten: then.filter(({ chain }, index) => now[index]?.chain !== chain).map(({ path }) => path),
    downChanged: now
      .filter(({ down, seq }) => seq <= then.length && down?.sha256 !== then[seq - 1]?.down?.sha256)
      .map(({ path }) => path),
  };
}

async function checkBodies(
  source: Source,
  release: Pick<Release, "migrations" | "repeatable">,
  signal: AbortSignal,
): Promise<{ readonly count: number; readonly bytes: number }> {
  const distinct = [...new Map(bodiesOf(release).map((body) => [body.sha256, body])).values()];
  // checked and let go, one by one: a whole history need not fit into memory
  await mapConcurrently(distinct, sourceLimits.concurrency, signal, async (body, stop) => {
    await readBlob(source, body, stop);
  });
  return { count: distinct.length, bytes: distinct.reduce((sum, { size }) => sum + size, 0) };
}

function notFound(what: string, url: string): RunnerError {
  return new RunnerError("RELEASE_NOT_FOUND", `there is ${what} under ${url}`, {
    hint: "check the digest and the prefix",
  });
}
