import { RunnerError } from "../error.ts";

const standard = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const urlSafe = /^(?:[A-Za-z0-9_-]{4})*(?:[A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$/;

/**
 * Base64 text → bytes, where each byte string has exactly one text in each alphabet.
 *
 * DSSE 1.0.2 asks for both alphabets; they may not be mixed. `Buffer.from` alone would drop white space and junk
 * and ignore spare bits, so one signed payload could be written in many ways.
 *
 * @throws RunnerError `B64` — white space, junk, missing padding or spare bits that are not zero
 */
export function decodeBase64(text: string, what: string): Buffer {
  const alphabet = standard.test(text) ? "base64" : urlSafe.test(text) ? "base64url" : undefined;
  if (alphabet !== undefined) {
    const bytes = Buffer.from(text, alphabet);
    if (bytes.toString(alphabet).replace(/=+$/, "") === text.replace(/=+$/, "")) return bytes;
  }
  throw new RunnerError("B64", `${what} is not strict base64`);
}
