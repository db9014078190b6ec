import { createHash, randomUUID } from "node:crypto";
import type { BigIntStats } from "node:fs";
import { type FileHandle, link, open, rename, stat, unlink } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { RunnerError } from "../error.ts";

// Nobody holds a lock for longer than one small file takes to be written; what is older was left by a process that died.
const staleLockMs = 10_000;

// Long enough to see such a lock become stale.
const lockWaitMs = 15_000;

/** Whether a file is one of our own in passing: a body being written, or a lock. */
export function isOwnFile(name: string): boolean {
  return /^\.lockkeeper-[0-9a-f-]+\.(tmp|lock)$/.test(name);
}

/** The name of a file's state: `Listed.version` of a folder. */
export function versionOf({ size, mtimeNs, ino }: Pick<BigIntStats, "size" | "mtimeNs" | "ino">): string {
  return `${size}-${mtimeNs}-${ino}`;
}

/** Errors of the file system by their code. */
export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}

/**
 * Makes a file that did not exist, whole at once: of any number of racing writers, one wins.
 *
 * A hard link is what every file system that has them creates in one step, or not at all.
 */
export async function createFile(path: string, bytes: Uint8Array): Promise<BigIntStats | "conflict"> {
  return withTemporary(path, bytes, async (temporary) => {
    try {
      await link(temporary, path);
      return true;
    } catch (error) {
      if (hasCode(error, "EEXIST")) return false;
      throw error;
    }
  });
}

/**
 * Replaces a file, whole at once, if `isExpected` still says so while no other `replaceFile` is at it.
 *
 * The lock is a file beside it and binds only those who ask for it: between programs that write in other ways the last one wins.
 *
 * @throws RunnerError `SOURCE_CONFLICT` — others held the lock all the time
 */
export async function replaceFile(
  path: string,
  bytes: Uint8Array,
  isExpected: () => Promise<boolean>,
  signal: AbortSignal,
): Promise<BigIntStats | "conflict"> {
  const unlock = await lock(path, signal);
  try {
    if (!(await isExpected())) return "conflict";
    return await withTemporary(path, bytes, async (temporary) => {
      await rename(temporary, path);
      return true;
    });
  } finally {
    await unlock();
  }
}

/** Writes the bytes to a new file beside `path`, lets `publish` give them their name, and sees that both are on the disk. */
async function withTemporary(
  path: string,
  bytes: Uint8Array,
  publish: (temporary: string) => Promise<boolean>,
): Promise<BigIntStats | "conflict"> {
  const temporary = join(dirname(path), `.lockkeeper-${randomUUID()}.tmp`);
  try {
    const file = await open(temporary, "wx");
    let found: BigIntStats;
    try {
      await file.writeFile(bytes);
      // The kernel's own stamp is as coarse as its tick: two states of one size could look the same.
      const now = (performance.timeOrigin + performance.now()) / 1_000;
      await file.utimes(now, now);
      await file.sync();
      found = await file.stat({ bigint: true });
    } finally {
      await file.close();
    }
    if (!(await publish(temporary))) return "conflict";
    await syncFolder(dirname(path));
    return found;
  } finally {
    await unlinkIfThere(temporary);
  }
}

async function lock(path: string, signal: AbortSignal): Promise<() => Promise<void>> {
  // By digest: the name itself may already be as long as names can be.
  const digest = createHash("sha256").update(basename(path)).digest("hex").slice(0, 32);
  const lockPath = join(dirname(path), `.lockkeeper-${digest}.lock`);
  const deadline = performance.now() + lockWaitMs;
  for (;;) {
    signal.throwIfAborted();
    try {
      const file = await open(lockPath, "wx");
      await file.close();
      return () => unlinkIfThere(lockPath);
    } catch (error) {
      if (!hasCode(error, "EEXIST")) throw error;
    }
    await breakStale(lockPath);
    if (performance.now() > deadline) {
      throw new RunnerError("SOURCE_CONFLICT", `${path} is being written by others`, {
        hint: "try again; see who else publishes into this folder",
      });
    }
    await sleep(5 + Math.random() * 20, undefined, { signal }).catch(() => signal.throwIfAborted());
  }
}

/** Takes away a lock whose holder is gone; one that was taken anew meanwhile is put back. */
async function breakStale(lockPath: string): Promise<void> {
  try {
    const seen = await stat(lockPath, { bigint: true });
    if (Date.now() - Number(seen.mtimeMs) < staleLockMs) return;
    const away = join(dirname(lockPath), `.lockkeeper-${randomUUID()}.tmp`);
    await rename(lockPath, away);
    const taken = await stat(away, { bigint: true });
    if (taken.ino !== seen.ino || taken.mtimeNs !== seen.mtimeNs) await link(away, lockPath);
    await unlink(away);
  } catch (error) {
    // Another was faster.
    if (!hasCode(error, "ENOENT", "EEXIST")) throw error;
  }
}

/** A new name is on the disk only when its folder is. */
async function syncFolder(folder: string): Promise<void> {
  let handle: FileHandle;
  try {
    handle = await open(folder, "r");
  } catch (error) {
    // Windows opens no folders, and needs no sync of them.
    if (hasCode(error, "EISDIR", "EPERM")) return;
    throw error;
  }
  try {
    await handle.sync();
  } catch (error) {
    if (!hasCode(error, "EINVAL", "ENOTSUP")) throw error;
  } finally {
    await handle.close();
  }
}

async function unlinkIfThere(path: string): Promise<void> {
  await unlink(path).catch((error: unknown) => {
    if (!hasCode(error, "ENOENT")) throw error;
  });
}
