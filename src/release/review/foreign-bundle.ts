import { RunnerError } from "../../error.ts";
import { readEnvelopes } from "../envelope.ts";
import { releaseLimits } from "../limits.ts";
import { signersOf } from "../trust/signers.ts";
import type { KnownSigners } from "../trust/signers.ts";
import { parseStrictJson } from "../strict-json.ts";

/**
 * What another tool wrote, as lines of a release: one bundle of cosign, also one that was spread over several lines, or one
 * a line as `actions/attest` collects them.
 *
 * @throws RunnerError `JSON_…`, `BUNDLE` — neither
 */
export function readForeignBundles(bytes: Buffer, what: string): readonly string[] {
  if (bytes.length > releaseLimits.releaseBytes) {
    throw new RunnerError("TOO_LARGE", `${what} has ${bytes.length} bytes, so it is no bundle`);
  }
  const text = bytes.toString("utf8");
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "");
  // a bundle a line, where each line is one whole object
  const isList =
    lines.length > 0 && lines.every((line) => line.startsWith("{") && line.trimEnd().endsWith("}"));
  // between the tokens of JSON a line end is a space, and inside of a text there is none
  const bundles = isList ? lines : [text.replaceAll(/[\r\n]+/g, " ").trim()];
  for (const bundle of bundles) parseStrictJson(Buffer.from(bundle), what, releaseLimits.bundleBytes);
  return bundles;
}

/**
 * Refuses a line that is not over these very bytes, or that a known signer did not make though it says so. One of a signer
 * that is not known is let through: it counts nothing, and may be of a key that is about to be trusted.
 *
 * @param what - names the file in errors
 * @throws RunnerError `PAYLOAD_DIFFERS`; `BUNDLE`, and the codes of an envelope
 */
export function assertSigns(line: string, payload: Buffer, known: KnownSigners, what: string): void {
  const envelopes = readEnvelopes(Buffer.from(line), what);
  for (const envelope of envelopes) {
    if (!envelope.payload.equals(payload)) {
      throw new RunnerError("PAYLOAD_DIFFERS", `${what} signs something else than this release`, {
        hint: "sign exactly the bytes that --statement-out writes; cosign needs --statement, not --predicate",
      });
    }
    const claimed = known.keys.find(({ hint }) => hint === envelope.hint);
    if (claimed === undefined || signersOf([envelope], known).length > 0) continue;
    throw new RunnerError("BUNDLE", `${what} is no signature of the key that it names, ${claimed.id}`, {
      hint:
        claimed.kind === "ed25519"
          ? "cosign 3 signs a hash with Ed25519 in place of the message, which does not count: sign with a P-256 key"
          : "find out who made it, and sign again",
      fields: { keyId: claimed.id },
    });
  }
}
