import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { setImmediate as nextTurn } from "node:timers/promises";
import { versionOf } from "./folder-write.ts";
import type { StoredObject } from "./source.ts";

/** milliseconds of such calls in a row, before the rest of this process has its turn */
const turnMs = 8;
/** milliseconds that calls may have taken, of which each adds a little: far above what lies in memory, far below what lies across a network */
const patienceMs = { start: 20, call: 0.5 };
/** bytes of a file that the thread waits for; nobody who wants to stop it waits for more */
const smallBytes = 64 * 1024;

/**
 * File system calls that the thread waits for: of small files that lie in memory, a tenth of the price of calls that it
 * is told the end of. A file system that takes its time is found out, and asked in the other way from then on.
 */
export class AtOnce {
  #calls = 0;
  #spentMs = 0;
  #turnBegan = 0;

  /** Whether it is worth it, so far. */
  isQuick(): boolean {
    return this.#spentMs < patienceMs.start + this.#calls * patienceMs.call;
  }

  /** Whether {@link turn} is to be waited for before the next call. */
  isLong(): boolean {
    return performance.now() - this.#turnBegan > turnMs;
  }

  /** Lets the rest of this process have its turn. */
  async turn(): Promise<void> {
    await nextTurn();
    this.#turnBegan = performance.now();
  }

  call<T>(ask: () => T): T {
    const began = performance.now();
    try {
      return ask();
    } finally {
      this.#calls += 1;
      this.#spentMs += performance.now() - began;
    }
  }
}

/** Which state of a file is wanted: as in `Source`. */
export interface WantedState {
  readonly pinned?: string | undefined;
  readonly known?: string | undefined;
}

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;

/** Whether a path can be opened only where its last part is no symbolic link; Windows cannot. */
export const canRefuseLinks = O_NOFOLLOW !== undefined;

/**
 * The regular file at `path`, judged and read by one descriptor; `undefined` for whatever else is found there, which is
 * for the caller to look into with care: a symbolic link, no file, a large one, another state, one that changes meanwhile.
 */
export function readAtOnce(
  path: string,
  maxBytes: number,
  { pinned, known }: WantedState,
): StoredObject | "unchanged" | undefined {
  const descriptor = openAtOnce(path);
  if (descriptor === undefined) return undefined;
  try {
    const before = fstatSync(descriptor, { bigint: true });
    const size = Number(before.size);
    if (!before.isFile() || size > Math.min(maxBytes, smallBytes)) return undefined;
    const version = versionOf(before);
    if (pinned !== undefined && version !== pinned) return undefined;
    if (version === known) return "unchanged";
    // One byte more than there should be, to see that it is not there.
    const buffer = Buffer.allocUnsafe(size + 1);
    if (readSync(descriptor, buffer, 0, size + 1, 0) !== size) return undefined;
    if (versionOf(fstatSync(descriptor, { bigint: true })) !== version) return undefined;
    return { bytes: buffer.subarray(0, size), version };
  } catch {
    return undefined;
  } finally {
    closeSync(descriptor);
  }
}

function openAtOnce(path: string): number | undefined {
  try {
    return openSync(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    return undefined;
  }
}
