import { RunnerError } from "../error.ts";
import { formatDigest, sha256Hex } from "../migration/checksum.ts";
import type { Body } from "../migration/migration.ts";
import type { Source } from "../source/source.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";

/** What a release says of a body, as far as its bytes are judged by it. */
export type SignedBody = Pick<Body, "path" | "sha256" | "size">;

/**
 * One body from its blob.
 *
 * @throws RunnerError `SOURCE_NOT_FOUND` — there is no such object; `BLOB_DIGEST` — it holds other bytes
 */
export async function readBlob(source: Source, body: SignedBody, signal: AbortSignal): Promise<Buffer> {
  const bytes = await readExact(source, layout.blob(body.sha256), body.size, signal);
  if (bytes === undefined) {
    throw new RunnerError("SOURCE_NOT_FOUND", `the body of "${body.path}" is not in the source`, {
      hint: "restore the object, or publish these files to a new prefix",
      fields: { migration: body.path, expected: formatDigest(body.sha256) },
    });
  }
  return assertBody(bytes === "longer" ? Buffer.alloc(0) : bytes, body);
}

/**
 * The object at `key`, whose right size is known; `"longer"` for one that has more bytes, of which no more are read.
 */
export async function readExact(
  source: Source,
  key: string,
  size: number,
  signal: AbortSignal,
): Promise<Buffer | "longer" | undefined> {
  try {
    return (await source.read(key, { maxBytes: size }, signal))?.bytes;
  } catch (error) {
    if (error instanceof RunnerError && error.code === "TOO_LARGE") return "longer";
    throw error;
  }
}

/**
 * The bytes, when they are the ones that were signed.
 *
 * @throws RunnerError `BLOB_DIGEST`
 */
export function assertBody(bytes: Buffer, body: SignedBody): Buffer {
  if (bytes.length === body.size && sha256Hex(bytes) === body.sha256) return bytes;
  throw new RunnerError(
    "BLOB_DIGEST",
    `the body of "${body.path}" in the source is not the one that was signed`,
    {
      hint: "find out who writes to the source; restore the object, or publish these files to a new prefix",
      fields: { migration: body.path, expected: formatDigest(body.sha256) },
    },
  );
}

/**
 * Refuses what would not fit into the memory of a run.
 *
 * @throws RunnerError `TOO_LARGE`
 */
export function assertRunBytes(bodies: readonly Pick<Body, "size">[]): void {
  const total = bodies.reduce((sum, { size }) => sum + size, 0);
  if (total <= releaseLimits.runBytes) return;
  throw new RunnerError(
    "TOO_LARGE",
    `the bodies to run have ${total} bytes together, more than ${releaseLimits.runBytes}`,
    {
      hint: "apply them in parts with a number or goto, or load data by another way than migrations",
      fields: { size: total, limit: releaseLimits.runBytes },
    },
  );
}
