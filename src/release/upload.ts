import { RunnerError } from "../error.ts";
import { sha256Hex } from "../migration/checksum.ts";
import type { WritableSource } from "../source/source.ts";
import { readEnvelopes } from "./envelope.ts";
import { writeHead } from "./head.ts";
import type { Head } from "./head.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";

/** What became of an object that was to be there. */
export type Uploaded = "uploaded" | "present";

/**
 * Creates an object that is named by its own digest; one that is there already must hold these very bytes.
 *
 * @throws RunnerError `BLOB_DIGEST` - it does not
 */
export async function uploadContent(
  destination: WritableSource,
  key: string,
  bytes: Buffer,
  signal: AbortSignal,
): Promise<Uploaded> {
  const written = await destination.write(key, bytes, { absent: true }, signal);
  if (written !== "conflict") return "uploaded";
  const there = await destination.read(key, { maxBytes: bytes.length + 1 }, signal);
  if (there !== undefined && there.bytes.equals(bytes)) return "present";
  throw new RunnerError(
    "BLOB_DIGEST",
    `${key} under ${destination.url} holds other bytes than its name says`,
    {
      hint: "find out who wrote it, and remove the object",
      fields: { key, expected: `sha256:${sha256Hex(bytes)}` },
    },
  );
}

/**
 * Creates the release object, or adds our lines to the ones that are there: another signer's, over the same statement.
 *
 * @throws RunnerError `SOURCE_CONFLICT` - others write it at the same time, again and again
 */
export async function uploadBundles(
  destination: WritableSource,
  sha256: string,
  lines: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const key = layout.release(sha256);
  const ours = Buffer.from(lines.map((line) => `${line}\n`).join(""));
  for (let attempt = 0; attempt < 3; attempt++) {
    if ((await destination.write(key, ours, { absent: true }, signal)) !== "conflict") return;
    const there = await destination.read(key, { maxBytes: releaseLimits.releaseBytes }, signal);
    if (there === undefined) continue;
    const signed = new Set(readEnvelopes(there.bytes).map(({ hint }) => hint));
    const missing = lines.filter((line) =>
      readEnvelopes(Buffer.from(line)).some(({ hint }) => !signed.has(hint)),
    );
    if (missing.length === 0) return;
    const end = there.bytes.at(-1) === 0x0a ? "" : "\n";
    const joined = Buffer.concat([
      there.bytes,
      Buffer.from(`${end}${missing.map((line) => `${line}\n`).join("")}`),
    ]);
    if ((await destination.write(key, joined, { version: there.version }, signal)) !== "conflict") return;
  }
  throw conflict(destination.url);
}

/**
 * Publishes: points `head.json` at the release, if it is still in the state `before` (undefined: absent).
 *
 * @throws RunnerError `SOURCE_CONFLICT` - somebody else published meanwhile
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

function conflict(url: string): RunnerError {
  return new RunnerError("SOURCE_CONFLICT", `somebody else published under ${url} at the same time`, {
    hint: "run again: it continues after the other release",
  });
}
