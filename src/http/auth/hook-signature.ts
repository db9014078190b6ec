import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Hook } from "./hook.ts";

/** seconds that a sender's clock may differ from ours, as Standard Webhooks has it */
const toleranceSeconds = 300;
const maxSignatures = 16;

/** A webhook as it arrived; header names are lower case. */
export interface Delivery {
  header(name: string): string | undefined;
  /** exactly the bytes received */
  readonly body: Buffer;
}

/** What of a delivery is the sender's beyond doubt. */
export interface Signed {
  /** the same for each repetition of a delivery, at most 300 characters */
  readonly id: string;
  /** what was signed */
  readonly content: Buffer;
}

/** Hooks whose sender shares a secret with us. */
export type SecretHook = Exclude<Hook, { readonly kind: "sns" }>;

/**
 * A delivery whose signature one of the secrets made.
 *
 * @param keys - one, or two while a secret is being replaced; all are tried, in the same time whichever fits
 * @throws Error saying why not, for the log; without a piece of the delivery
 */
export function verifySigned(
  hook: SecretHook,
  keys: readonly Buffer[],
  delivery: Delivery,
  now: Date,
): Signed {
  return hook.kind === "hmac" ? verifyHmac(hook, keys, delivery) : verifyStandard(keys, delivery, now);
}

/** Whether a delivery bears a signature at all, so that nothing is read of one that does not. */
export function hasSignature(hook: SecretHook, header: Delivery["header"]): boolean {
  return hook.kind === "hmac"
    ? signatureOf(hook, header) !== undefined
    : header("webhook-signature") !== undefined;
}

function verifyHmac(
  hook: Extract<SecretHook, { readonly kind: "hmac" }>,
  keys: readonly Buffer[],
  { header, body }: Delivery,
): Signed {
  const given = signatureOf(hook, header);
  if (given === undefined) throw new Error(`no signature in ${hook.header}`);
  if (!isMadeBy(keys, body, [given])) throw new Error("the signature is of another body or secret");
  return { id: `sha256:${createHash("sha256").update(body).digest("hex")}`, content: body };
}

function signatureOf(
  { header: name, prefix, encoding }: Extract<SecretHook, { readonly kind: "hmac" }>,
  header: Delivery["header"],
): Buffer | undefined {
  const value = header(name) ?? "";
  if (!value.startsWith(prefix)) return undefined;
  return digestIn(value.slice(prefix.length), encoding);
}

/**
 * Standard Webhooks 1.0: `v1,` and the base64 of an HMAC over id, timestamp and body with dots between. The id has none
 * itself, so there is one way only to take that apart.
 */
function verifyStandard(keys: readonly Buffer[], { header, body }: Delivery, now: Date): Signed {
  const id = header("webhook-id") ?? "";
  const timestamp = header("webhook-timestamp") ?? "";
  if (!/^[\x21-\x2d\x2f-\x7e]{1,256}$/.test(id)) throw new Error("no webhook-id, or one with a dot or space");
  if (!/^[0-9]{1,12}$/.test(timestamp)) throw new Error("no webhook-timestamp");
  if (Math.abs(now.getTime() / 1000 - Number(timestamp)) > toleranceSeconds)
    throw new Error("the delivery is older than 5 minutes, or from the future");
  const given = (header("webhook-signature") ?? "")
    .split(" ")
    .slice(0, maxSignatures)
    .flatMap((one) => (one.startsWith("v1,") ? (digestIn(one.slice(3), "base64") ?? []) : []));
  if (!isMadeBy(keys, Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]), given))
    throw new Error("the signature is of another body or secret");
  return { id, content: body };
}

/** Whether one of the digests is the HMAC of the message under one of the keys. */
function isMadeBy(keys: readonly Buffer[], message: Buffer, digests: readonly Buffer[]): boolean {
  const wanted = keys.map((key) => createHmac("sha256", key).update(message).digest());
  const hits = wanted.flatMap((right) => digests.map((given) => timingSafeEqual(given, right)));
  return hits.includes(true);
}

function digestIn(text: string, encoding: "hex" | "base64"): Buffer | undefined {
  const shape = encoding === "hex" ? /^[0-9a-fA-F]{64}$/ : /^[A-Za-z0-9+/]{43}=$/;
  return shape.test(text) ? Buffer.from(text, encoding) : undefined;
}
