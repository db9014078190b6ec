import { open } from "node:fs/promises";

import { RunnerError } from "../error.ts";
import type { RunnerErrorCode } from "../error.ts";
import { releaseLimits } from "./limits.ts";

/**
 * The bytes of a file of people's own: a key, a trust, a root. One that is too long to be such is not read.
 *
 * @throws RunnerError `code` — it cannot be read, or is too long
 */
export async function readSmallFile(path: string, code: RunnerErrorCode): Promise<Buffer> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    if (size <= releaseLimits.keyFileBytes) return await file.readFile();
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
