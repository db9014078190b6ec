import { createHash } from "node:crypto";

const PREFIX = "sha256:";

/** SHA-256 as 64 lower-case hex digits, over exactly these bytes; text is taken as UTF-8. */
export function sha256Hex(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A checksum as people and documents write it: `sha256:<hex>`. */
export function formatDigest(hex: string): `sha256:${string}` {
  return `${PREFIX}${hex}`;
}

/** The hex digits of `sha256:<64 lower-case hex digits>`; undefined for any other text. */
export function parseDigest(text: string): string | undefined {
  return /^sha256:[0-9a-f]{64}$/.test(text) ? text.slice(PREFIX.length) : undefined;
}
