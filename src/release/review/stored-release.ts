import { RunnerError } from "../../error.ts";
import { formatDigest, parseDigest, sha256Hex } from "../../migration/checksum.ts";
import type { Source } from "../../source/source.ts";
import { readExact } from "../body.ts";
import { readEnvelopes } from "../envelope.ts";
import type { Envelope } from "../envelope.ts";
import { readHead } from "../head.ts";
import type { Head } from "../head.ts";
import { layout } from "../layout.ts";
import { releaseLimits } from "../limits.ts";
import { readManifest } from "../manifest.ts";
import type { Manifest } from "../manifest.ts";
import { readStatement } from "../statement.ts";
import type { ReleaseStatement } from "../statement.ts";

/** A release object, held together by its digest only: whose signatures it carries is not looked at. */
export interface StoredLines {
  /** `sha256:<hex>` of the payload */
  readonly digest: string;
  /** one bundle a line */
  readonly bytes: Buffer;
  /** what all lines sign */
  readonly payload: Buffer;
  readonly envelopes: readonly Envelope[];
  readonly statement: ReleaseStatement;
}

/** A release object with its manifest, held together by digests only. */
export interface StoredRelease extends StoredLines {
  readonly manifestBytes: Buffer;
  readonly manifest: Manifest;
}

/** What the head names; undefined where there is none. */
export async function readHeadOf(
  source: Source,
  signal: AbortSignal,
): Promise<{ readonly head: Head; readonly version: string } | undefined> {
  const object = await source.read(layout.head, { maxBytes: releaseLimits.headBytes }, signal);
  return object === undefined ? undefined : { head: readHead(object.bytes), version: object.version };
}

/**
 * The release object that a digest names.
 *
 * @throws RunnerError `RELEASE_NOT_FOUND`; `UNEXPECTED_RELEASE` — another one lies under its name; the codes of an envelope and a statement
 */
export async function readStoredLines(
  source: Source,
  digest: string,
  signal: AbortSignal,
): Promise<StoredLines> {
  const sha256 = parseDigest(digest);
  const object =
    sha256 === undefined
      ? undefined
      : await source.read(layout.release(sha256), { maxBytes: releaseLimits.releaseBytes }, signal);
  if (object === undefined) throw notFound(`no release ${digest}`, source.url);
  const envelopes = readEnvelopes(object.bytes);
  const payload = envelopes[0]?.payload ?? Buffer.alloc(0);
  const actual = formatDigest(sha256Hex(payload));
  if (actual !== digest) {
    throw new RunnerError(
      "UNEXPECTED_RELEASE",
      "the source holds another release than the one asked for under its name",
      { fields: { expected: digest, actual } },
    );
  }
  return { digest, bytes: object.bytes, payload, envelopes, statement: readStatement(payload) };
}

/**
 * The release that a digest names, with its manifest.
 *
 * @throws RunnerError as {@link readStoredLines}; `MANIFEST_DIGEST`, and the codes of `readManifest`
 */
export async function readStoredRelease(
  source: Source,
  digest: string,
  signal: AbortSignal,
): Promise<StoredRelease> {
  const lines = await readStoredLines(source, digest, signal);
  const { manifestSha256, manifestSize } = lines.statement;
  const bytes = await readExact(source, layout.manifest(manifestSha256), manifestSize, signal);
  if (bytes === undefined) throw notFound("no manifest of this release", source.url);
  if (bytes === "longer" || sha256Hex(bytes) !== manifestSha256) {
    throw new RunnerError("MANIFEST_DIGEST", "the manifest is not the one that was signed");
  }
  return { ...lines, manifestBytes: bytes, manifest: readManifest(bytes) };
}

function notFound(what: string, url: string): RunnerError {
  return new RunnerError("RELEASE_NOT_FOUND", `there is ${what} under ${url}`, {
    hint: "check the digest and the prefix",
  });
}
