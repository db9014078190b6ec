import { sha256Hex } from "../migration/checksum.ts";
import type { Body, Migration } from "../migration/migration.ts";
import type { Source } from "../source/source.ts";
import { assertBody, readExact } from "./body.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";
import type { Pack } from "./manifest.ts";
import type { VerifiedRelease } from "./verify.ts";

/** Fewer bodies than this are read, and published, one by one: they are under way at once anyway. */
const minBodies = 8;

/** A pack is read when at least this part of its bytes is wanted. */
const minWantedShare = 0.25;

/**
 * Those of `wanted` that the release's pack holds, in one request; none when there is no pack or too little of it is wanted.
 *
 * Each body is verified by its own digest, so the pack itself need not be.
 *
 * @throws RunnerError `BLOB_DIGEST`
 */
export async function readPacked(
  source: Source,
  { manifest: { pack }, migrations }: VerifiedRelease,
  wanted: readonly Body[],
  signal: AbortSignal,
): Promise<ReadonlyMap<string, Buffer>> {
  if (pack === undefined || wanted.length < minBodies || bytesOf(wanted) < pack.size * minWantedShare)
    return new Map();
  const offsets = new Map(pack.offsets.map(({ seq, offset }) => [migrations[seq - 1]?.sha256, offset]));
  const packed = wanted.filter(({ sha256 }) => offsets.has(sha256));
  if (packed.length < minBodies || bytesOf(packed) < pack.size * minWantedShare) return new Map();
  const bytes = await readExact(source, layout.pack(pack.sha256), pack.size, signal);
  // a pack only saves requests: without it, there are the blobs
  if (bytes === undefined || bytes === "longer") return new Map();
  return new Map(
    packed.map((body) => {
      const offset = offsets.get(body.sha256) ?? 0;
      return [body.sha256, assertBody(bytes.subarray(offset, offset + body.size), body)];
    }),
  );
}

function bytesOf(bodies: readonly Body[]): number {
  return bodies.reduce((sum, { size }) => sum + size, 0);
}

/**
 * The pack of a new release: the one before while it still holds nearly everything, else a new one of all up bodies that fit.
 *
 * So a fresh database takes one request and a few, however many releases its migrations came in.
 *
 * @param read - the bytes of an up body
 */
export async function makePack(
  migrations: readonly Migration[],
  before: Pack | undefined,
  read: (migration: Migration) => Promise<Buffer>,
): Promise<{ readonly pack: Pack | undefined; readonly bytes: Buffer | undefined }> {
  if (migrations.length - (before?.offsets.length ?? 0) < minBodies)
    return { pack: before, bytes: undefined };
  const parts: Buffer[] = [];
  const offsets: { seq: number; offset: number }[] = [];
  let size = 0;
  for (const migration of migrations) {
    if (size + migration.size > releaseLimits.packBytes) continue;
    parts.push(await read(migration));
    offsets.push({ seq: migration.seq, offset: size });
    size += migration.size;
  }
  const bytes = Buffer.concat(parts);
  return { pack: { sha256: sha256Hex(bytes), size, offsets }, bytes };
}
