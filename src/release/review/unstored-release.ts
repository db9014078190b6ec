import { sha256Hex } from "../../migration/checksum.ts";
import type { WritableSource } from "../../source/source.ts";
import { readEnvelopes } from "../envelope.ts";
import { layout } from "../layout.ts";

/**
 * A prefix as it would be with the release that these lines sign, where it has none of that name yet: whoever signs first
 * with another tool looks at it, and signs it, like a release that is there already. Writes nothing by itself.
 *
 * @param lines - of one release, see `readForeignBundles`
 * @throws RunnerError `PAYLOAD_DIFFERS` — they are of several; `BUNDLE`, and the codes of an envelope
 */
export function withUnstored(destination: WritableSource, lines: readonly string[]): WritableSource {
  if (lines.length === 0) return destination;
  const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(""));
  const payload = readEnvelopes(bytes, "what the bundles hold")[0]?.payload ?? Buffer.alloc(0);
  const name = layout.release(sha256Hex(payload));
  return {
    url: destination.url,
    list: (prefix, signal) => destination.list(prefix, signal),
    readIfChanged: (key, version, options, signal) =>
      destination.readIfChanged(key, version, options, signal),
    write: (key, written, condition, signal) => destination.write(key, written, condition, signal),
    async read(key, options, signal) {
      const there = await destination.read(key, options, signal);
      return there === undefined && key === name ? { bytes, version: "" } : there;
    },
  };
}
