import { readFile, stat } from "node:fs/promises";
import { RunnerError } from "../error.ts";

/** More than any passphrase, password or token; a wrong file name must not load a disk image. */
const maxSecretBytes = 64 * 1024;

/**
 * The secret in a file, without the line end that editors leave. Read anew at each call: mounted tokens are renewed in place.
 *
 * @param what - `--token-file`, for the error
 * @throws RunnerError `USAGE` when the file cannot be read, is too large or is empty; never with its content
 */
export async function readSecretFile(path: string, what: string): Promise<string> {
  let text: string;
  try {
    const { size } = await stat(path);
    if (size > maxSecretBytes)
      throw new RunnerError("USAGE", `${what}: "${path}" has more than ${maxSecretBytes} bytes`);
    text = await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof RunnerError) throw cause;
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
    throw new RunnerError("USAGE", `${what}: "${path}" cannot be read (${code})`, {
      hint: "check the path, and that this user may read it",
      cause,
    });
  }
  const secret = text.replace(/\r?\n$/, "");
  if (secret === "")
    throw new RunnerError("USAGE", `${what}: "${path}" is empty`, { hint: "write the secret into it" });
  return secret;
}
