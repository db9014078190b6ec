import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import { sourceLimits } from "../../source/source.ts";
import type { WritableSource } from "../../source/source.ts";
import { mapConcurrently } from "../concurrent.ts";
import { readEnvelopes } from "../envelope.ts";
import { writeHead } from "../head.ts";
import type { Head } from "../head.ts";
import type { PublicKey } from "../trust/key.ts";
import { layout } from "../layout.ts";
import { releaseLimits } from "../limits.ts";
import { onlyKeys, signersOf } from "../trust/signers.ts";

/** An object to create under the name of its own digest. */
export interface Content {
  readonly key: string;
  /** bytes */
  readonly size: number;
  readonly bytes: (signal: AbortSignal) => Promise<Buffer>;
}

/** A {@link Content} whose bytes are at hand. */
export function contentOf(key: string, bytes: Buffer): Content {
  return { key, size: bytes.length, bytes: () => Promise.resolve(bytes) };
}

/** What became of the objects of a publication. */
export interface UploadCounts {
  readonly uploaded: number;
  /** were there already, with these very bytes */
  readonly present: number;
  /** bytes written */
  readonly bytes: number;
}

/**
 * Creates objects that are named by their own digests, many at a time; what is there already must hold these very bytes.
 *
 * @param onDone - told after each, with the number of them so far
 * @throws RunnerError `BLOB_DIGEST` — an object is there and holds other bytes
 */
export async function uploadContents(
  destination: WritableSource,
  contents: readonly Content[],
  onDone: (done: number) => void,
  signal: AbortSignal,
): Promise<UploadCounts> {
  let done = 0;
  let uploaded = 0;
  let bytes = 0;
  await mapConcurrently(contents, sourceLimits.concurrency, signal, async (content, stop) => {
    const isNew = await uploadContent(destination, content.key, await content.bytes(stop), stop);
    if (isNew) uploaded++;
    if (isNew) bytes += content.size;
    onDone(++done);
  });
  return { uploaded, present: done - uploaded, bytes };
}

/**
 * Creates the release object, or adds lines to the ones that are there: another signer's, over the same statement.
 *
 * A line is left out where it is there already, or where its key has signed: not where another line only claims to be of
 * that key, for then whoever writes the bucket could keep a signature away.
 *
 * @param keys - of the lines that we have signed just now
 * @throws RunnerError `SOURCE_CONFLICT` — others write it at the same time, again and again
 * @throws RunnerError `TOO_LARGE`, `PAYLOAD_DIFFERS` — with these lines it would be no release any more
 */
export async function uploadBundles(
  destination: WritableSource,
  sha256: string,
  lines: readonly string[],
  keys: readonly PublicKey[],
  signal: AbortSignal,
): Promise<void> {
  const key = layout.release(sha256);
  const ours = Buffer.from(lines.map((line) => `${line}\n`).join(""));
  for (let attempt = 0; attempt < bundleAttempts; attempt++) {
    if ((await destination.write(key, ours, { absent: true }, signal)) !== "conflict") return;
    const there = await destination.read(key, { maxBytes: releaseLimits.releaseBytes }, signal);
    if (there === undefined) continue;
    const missing = missingLines(there.bytes, lines, keys);
    if (missing.length === 0) return;
    const end = there.bytes.at(-1) === 0x0a ? "" : "\n";
    const joined = Buffer.concat([
      there.bytes,
      Buffer.from(`${end}${missing.map((line) => `${line}\n`).join("")}`),
    ]);
    // one line too many, and nobody could read any of them
    readEnvelopes(joined);
    if ((await destination.write(key, joined, { version: there.version }, signal)) !== "conflict") return;
  }
  throw conflict(destination.url);
}

/** Several signers at once each cost the others one try. */
const bundleAttempts = 8;

function missingLines(
  there: Buffer,
  lines: readonly string[],
  keys: readonly PublicKey[],
): readonly string[] {
  const present = new Set(there.toString("utf8").split("\n"));
  const known = onlyKeys(keys);
  const signed = new Set(signersOf(readEnvelopes(there), known));
  return lines.filter((line) => {
    const [signer] = signersOf(readEnvelopes(Buffer.from(line)), known);
    return !present.has(line) && (signer === undefined || !signed.has(signer));
  });
}

/**
 * Publishes: points `head.json` at the release, if it is still in the state `before` (undefined: absent).
 *
 * @throws RunnerError `SOURCE_CONFLICT` — somebody else published meanwhile
 */
export async function moveHead(
  destination: WritableSource,
  head: Head,
  before: string | undefined,
  signal: AbortSignal,
): Promise<void> {
  const bytes = writeHead(head);
  const condition = before === undefined ? ({ absent: true } as const) : { version: before };
  if ((await destination.write(layout.head, bytes, condition, signal)) !== "conflict") return;
  const there = await destination.read(layout.head, { maxBytes: releaseLimits.headBytes }, signal);
  // the same release, published by a twin of this process, or by our own request whose answer was lost
  if (there?.bytes.equals(bytes)) return;
  throw conflict(destination.url);
}

/** True when it was absent. */
async function uploadContent(
  destination: WritableSource,
  key: string,
  bytes: Buffer,
  signal: AbortSignal,
): Promise<boolean> {
  if ((await destination.write(key, bytes, { absent: true }, signal)) !== "conflict") return true;
  const there = await destination.read(key, { maxBytes: bytes.length + 1 }, signal);
  if (there !== undefined && there.bytes.equals(bytes)) return false;
  throw new RunnerError(
    "BLOB_DIGEST",
    `${key} under ${destination.url} holds other bytes than its name says`,
    {
      hint: "find out who wrote it, and remove the object",
      fields: { key, expected: `sha256:${sha256Hex(bytes)}` },
    },
  );
}

function conflict(url: string): RunnerError {
  return new RunnerError("SOURCE_CONFLICT", `somebody else published under ${url} at the same time`, {
    hint: "run again: it continues after the other release",
  });
}
