import { X509Certificate } from "node:crypto";

import { RunnerError, toRunnerError } from "../../error.ts";
import { formatDigest } from "../../migration/checksum.ts";
import type { Engine } from "../../migration/migration.ts";
import { sourceLimits } from "../../source/source.ts";
import type { Source } from "../../source/source.ts";
import type { TrustAnchor } from "../trust/anchor.ts";
import { readBlob } from "../body.ts";
import { readChanges } from "./changes.ts";
import type { ReleaseChanges } from "./changes.ts";
import { mapConcurrently } from "../concurrent.ts";
import type { Envelope } from "../envelope.ts";
import { resolveTrusts } from "../trust/environment-trust.ts";
import { requestTimestamp, whyStale } from "../freshness.ts";
import { nothingPublished } from "../head.ts";
import type { Head } from "../head.ts";
import type { KeyKind } from "../trust/key.ts";
import type { Manifest } from "../manifest.ts";
import { isMisdescribed } from "./misdescribed.ts";
import { isRefusal } from "../refusal.ts";
import { bodiesOf, type Release } from "../release.ts";
import { signersOf } from "../trust/signers.ts";
import type { ReleaseStatement } from "../statement.ts";
import { readHeadOf, readStoredRelease } from "./stored-release.ts";
import type { StoredRelease } from "./stored-release.ts";
import { ruleFor } from "../trust/trust.ts";
import type { Trust } from "../trust/trust.ts";
import { assertManifestOf, verifyManifest, verifyStatement } from "../verify.ts";
import { isAbove } from "./waiting.ts";

/** Which release to look at, and what to judge it by. */
export interface InspectOptions {
  readonly source: Source;
  /** default: what the head names */
  readonly digest?: string | undefined;
  /** without it nothing is verified, only shown */
  readonly trust?: TrustAnchor | undefined;
  /** what a target would compare with; default: what the release says of itself, and of its environments the one that asks for most */
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
  /** against what the head names; `waiting`: above it, so it was never published */
  readonly place: "newest" | "waiting" | "older";
  readonly statement: ReleaseStatement;
  readonly isExpired: boolean;
  /** why nobody vouches that it is the newest, where the trust wants that and no digest was named; else null */
  readonly stale: RunnerError | null;
  readonly signatures: readonly InspectedSignature[];
  /** which environment it was judged for */
  readonly environment: string;
  /** distinct trusted signers that are needed there; null without a trust */
  readonly threshold: number | null;
  readonly verdict: Verdict;
  readonly manifest: Manifest;
  readonly changes: ReleaseChanges;
  readonly bodies: InspectedBodies | null;
}

/** Bodies that were fetched and found as signed; absent where they were not asked for. */
export interface InspectedBodies {
  readonly count: number;
  readonly bytes: number;
  /** labels of those of which the manifest says something else than this build finds in them */
  readonly misdescribed: readonly string[];
}

/** One line of the release. */
export interface InspectedSignature {
  /** `sha256:<hex>` of the key that it claims, or was proven, to be of; null where it claims none */
  readonly keyId: string | null;
  /** null for a key that is not in the trust */
  readonly kind: KeyKind | null;
  /** whom its certificate names, where it has one; proven only where it is trusted. Whatever the signer wrote */
  readonly subject: string | null;
  readonly isTrusted: boolean;
}

/** `unknown`: no trust was given. `refused` holds what a runner would answer. */
export type Verdict =
  | { readonly kind: "verified" }
  | { readonly kind: "refused"; readonly error: RunnerError }
  | { readonly kind: "unknown" };

/**
 * Reads a release and judges it as a runner would, but shows it also where it would be refused.
 *
 * @throws RunnerError `RELEASE_NOT_FOUND`, and what keeps it from being shown at all: `JSON_…`, `SCHEMA`, `BUNDLE`, `MANIFEST_DIGEST`…
 */
export async function inspectRelease(options: InspectOptions, signal: AbortSignal): Promise<Inspection> {
  const { source, now } = options;
  const newest = await readHeadOf(source, signal);
  const digest = options.digest ?? newest?.head.digest;
  if (digest === undefined) throw nothingPublished(source.url);
  const shown = await readStoredRelease(source, digest, signal);
  const { statement, envelopes } = shown;
  const { environment, trust } = await resolve(options, statement, signal);
  const known = trust instanceof RunnerError ? undefined : trust;
  return {
    url: source.url,
    digest,
    place: placeOf(shown, newest?.head),
    statement,
    isExpired: now >= statement.expires,
    stale: await readStaleness(options, known, shown, signal),
    signatures: envelopes.map((envelope) => inspectSignature(envelope, known)),
    environment,
    threshold: known === undefined ? null : ruleFor(known, environment).threshold,
    verdict: judge(options, trust, shown, environment),
    manifest: shown.manifest,
    changes: await readChanges(source, shown, newest?.head, { trust: known, environment, now }, signal),
    bodies: options.withBodies ? await checkBodies(source, shown.manifest, signal) : null,
  };
}

function placeOf({ digest, statement }: StoredRelease, head: Head | undefined): Inspection["place"] {
  if (digest === head?.digest) return "newest";
  return isAbove(statement, head) ? "waiting" : "older";
}

function inspectSignature(envelope: Envelope, trust: Trust | undefined): InspectedSignature {
  const [signer] = trust === undefined ? [] : signersOf([envelope], trust);
  const subject = envelope.keyless === undefined ? null : subjectOf(envelope.keyless.certificate);
  if (signer !== undefined)
    return { keyId: signer.id, kind: "kind" in signer ? signer.kind : null, subject, isTrusted: true };
  const claimed = Buffer.from(envelope.hint ?? "", "base64");
  return {
    keyId: claimed.length === 32 ? formatDigest(claimed.toString("hex")) : null,
    kind: null,
    subject,
    isTrusted: false,
  };
}

function subjectOf(certificate: Buffer): string {
  try {
    return new X509Certificate(certificate).subjectAltName ?? "nobody";
  } catch {
    return "a certificate that cannot be read";
  }
}

async function readStaleness(
  { source, digest: named, stream, now }: InspectOptions,
  trust: Trust | undefined,
  { digest, statement }: StoredRelease,
  signal: AbortSignal,
): Promise<RunnerError | null> {
  const rule = trust?.timestamp ?? null;
  if (rule === null || named !== undefined) return null;
  const expectations = { rule, stream: stream ?? statement.stream, now };
  return whyStale({ ...statement, digest }, await requestTimestamp(source, signal), expectations) ?? null;
}

/** A root that is refused is a verdict on every release under it, and the release is shown all the same. */
async function resolve(
  { source, stream, environment, trust, now }: InspectOptions,
  statement: ReleaseStatement,
  signal: AbortSignal,
): Promise<{ readonly environment: string; readonly trust: Trust | RunnerError | undefined }> {
  const environments = environment === undefined ? statement.environments : [environment];
  const first = { environment: environments[0] ?? "", trust: undefined };
  if (trust === undefined) return first;
  const question = { source, stream: stream ?? statement.stream, now };
  try {
    const trusts = await resolveTrusts(trust, question, environments, signal);
    const rules = [...trusts].map(([environment, trust]) => ({ environment, trust }));
    const needed = (one: (typeof rules)[number]): number => ruleFor(one.trust, one.environment).threshold;
    return rules.toSorted((left, right) => needed(right) - needed(left))[0] ?? first;
  } catch (error) {
    if (isRefusal(error)) return { environment: first.environment, trust: error };
    throw error;
  }
}

/** As a runner would; what is wrong besides missing signatures is told first, for nobody should add theirs to it. */
function judge(
  options: InspectOptions,
  trust: Trust | RunnerError | undefined,
  shown: StoredRelease,
  environment: string,
): Verdict {
  if (trust instanceof RunnerError) return { kind: "refused", error: trust };
  const engine = options.engine ?? shown.manifest.engine;
  const judgeBy = (judging: Trust): void => {
    const statement = verifyStatement(shown.bytes, {
      stream: options.stream ?? shown.statement.stream,
      environment,
      engine,
      trust: judging,
      highWaterMark: undefined,
      expected: shown.digest,
      now: options.now,
    });
    verifyManifest(statement, shown.manifestBytes);
  };
  try {
    if (trust === undefined) {
      assertManifestOf({ ...shown.statement, engine }, shown.manifest);
      return { kind: "unknown" };
    }
    const rule = { ...ruleFor(trust, environment), threshold: 0 };
    judgeBy({ ...trust, rule, release: new Map() });
    judgeBy(trust);
    return { kind: "verified" };
  } catch (error) {
    return { kind: "refused", error: toRunnerError(error) };
  }
}

async function checkBodies(
  source: Source,
  release: Pick<Release, "migrations" | "repeatable" | "engine">,
  signal: AbortSignal,
): Promise<InspectedBodies> {
  const all = bodiesOf(release);
  const distinct = [...Map.groupBy(all, ({ sha256 }) => sha256).values()];
  // checked and let go, one by one: a whole history need not fit into memory
  const found = await mapConcurrently(distinct, sourceLimits.concurrency, signal, async (same, stop) => {
    const [first] = same;
    if (first === undefined) return [];
    const bytes = await readBlob(source, first, stop);
    const isWrong = await Promise.all(same.map((body) => isMisdescribed(body, bytes, release.engine)));
    return [{ size: first.size, misdescribed: same.filter((_, index) => isWrong[index]) }];
  });
  const bodies = found.flat();
  return {
    count: bodies.length,
    bytes: bodies.reduce((sum, { size }) => sum + size, 0),
    misdescribed: bodies.flatMap(({ misdescribed }) => misdescribed.map(({ path }) => path)),
  };
}
