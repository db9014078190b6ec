import { closeSync, fstatSync, openSync, readFileSync, writeFileSync } from "node:fs";

import { RunnerError } from "../../error.ts";
import type { RunnerErrorCode } from "../../error.ts";
import { releaseLimits } from "../limits.ts";

/**
 * The bytes of a file of people's own: a key, a trust, a root. One that is too long to be such is not read.
 *
 * @throws RunnerError `code` — it cannot be read, or is too long
 */
export async function readSmallFile(path: string, code: RunnerErrorCode): Promise<Buffer> {
  try {
    using file = open(path, "r");
    if (fstatSync(file.handle).size <= releaseLimits.keyFileBytes) return readFileSync(file.handle);
  } catch (error) {
    throw new RunnerError(code, `cannot read "${path}"`, {
      hint: "check the path and who may read it",
      cause: error,
    });
  }
  throw new RunnerError(
    code,
    `"${path}" has more than ${releaseLimits.keyFileBytes} bytes, so it is no such file`,
  );
}

/**
 * Creates a file; replaces nothing.
 *
 * @param whyNot - what a person should know who wanted to replace one
 * @throws RunnerError `code` — there is one already, or it cannot be written
 */
export async function createFile(
  path: string,
  content: string | Uint8Array,
  {
    code,
    mode,
    whyNot,
  }: { readonly code: "USAGE" | "KEY_INVALID"; readonly mode: number; readonly whyNot: string },
): Promise<void> {
  try {
    using file = open(path, "wx", mode);
    writeFileSync(file.handle, content);
  } catch (cause) {
    const isThere = cause instanceof Error && "code" in cause && cause.code === "EEXIST";
    throw new RunnerError(code, isThere ? `"${path}" is there already` : `cannot create "${path}"`, {
      hint: isThere ? whyNot : "choose a folder that is there and can be written",
      cause,
    });
  }
}

/** At once: for a file this small, loading what would wait for it takes far longer than reading it. */
function open(path: string, flags: "r" | "wx", mode?: number): { readonly handle: number } & Disposable {
  const handle = openSync(path, flags, mode);
  return { handle, [Symbol.dispose]: () => closeSync(handle) };
}
