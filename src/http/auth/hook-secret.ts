import { RunnerError } from "../../error.ts";
import type { Hook } from "./hook.ts";

/** Below this a secret could be guessed from one delivery that somebody has seen. */
const minSecretBytes = 24;
const base64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/**
 * The key in a webhook's secret file, without the line end that editors leave; of Standard Webhooks `whsec_` and base64,
 * of others the text itself.
 *
 * @param what - the file and its hook, for the error
 * @throws RunnerError `CONFIG` when it has fewer than 24 bytes, or is no base64 where it should be; never with its content
 */
export function parseHookSecret(kind: Exclude<Hook["kind"], "sns">, text: string, what: string): Buffer {
  const secret = text.replace(/\r?\n$/, "");
  const key = kind === "standard-webhooks" ? decoded(secret, what) : Buffer.from(secret);
  if (/^\s|\s$/.test(secret)) refuse(`${what}: begins or ends with white space`);
  if (key.length < minSecretBytes)
    refuse(`${what}: has ${key.length} bytes, and needs at least ${minSecretBytes}`);
  return key;
}

function decoded(secret: string, what: string): Buffer {
  const text = secret.replace(/^whsec_/, "");
  if (!base64.test(text)) refuse(`${what}: is not whsec_ and base64, as Standard Webhooks writes it`);
  return Buffer.from(text, "base64");
}

function refuse(problem: string): never {
  throw new RunnerError("CONFIG", problem, { hint: "make one with: openssl rand -base64 32" });
}
