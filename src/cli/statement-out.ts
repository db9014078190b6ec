import { writeFile } from "node:fs/promises";

import { RunnerError } from "../error.ts";
import { textFlag } from "./flag.ts";
import type { Invocation } from "./verb.ts";

/** Of every verb that makes, or shows, what is to be signed. */
export const statementOut = textFlag("statement-out", {
  placeholder: "<file>",
  text: "writes the exact bytes to sign, for another tool: cosign attest-blob --statement <file>",
});

/**
 * Writes the bytes to sign where `--statement-out` says, if it was given.
 *
 * @throws RunnerError `USAGE` — the file cannot be written
 */
export async function writeStatementOut(
  { get, output }: Pick<Invocation, "get" | "output">,
  payload: Uint8Array,
): Promise<void> {
  const path = get(statementOut);
  if (path === undefined) return;
  await writeFile(path, payload).catch((cause: unknown) => {
    throw new RunnerError("USAGE", `--statement-out: "${path}" cannot be written`, { cause });
  });
  output.note(`${path}  the ${payload.length} bytes to sign, whose sha256 is the release's digest`);
}
