import { isUtf8 } from "node:buffer";
import { RunnerError } from "../error.ts";

/**
 * A body's bytes as text, byte order mark included.
 *
 * @throws RunnerError `ENCODING` — not UTF-8, or a NUL character, which no database can be sent
 */
export function decodeBody(bytes: Uint8Array, path: string): string {
  const text = decodeUtf8(bytes, path);
  const nul = text.indexOf("\0");
  if (nul < 0) return text;
  const line = countLines(text.slice(0, nul));
  throw new RunnerError("ENCODING", `${path}:${line}: a NUL character`, {
    hint:
      text.startsWith("\0") || text.startsWith("\0", 1)
        ? SAVE_AS_UTF8
        : "remove it; no database takes one in a migration",
    fields: { migration: path, line },
  });
}

const SAVE_AS_UTF8 = "save the file as UTF-8";

function decodeUtf8(bytes: Uint8Array, path: string): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (isUtf8(buffer)) return buffer.toString("utf8");
  const offset = firstInvalidByte(bytes);
  const line = countLines(buffer.toString("latin1", 0, offset));
  throw new RunnerError("ENCODING", `${path}:${line}: not UTF-8 (byte ${offset})`, {
    hint: SAVE_AS_UTF8,
    fields: { migration: path, line, byte: offset },
  });
}

/** Where the first character begins that is none. Bisects: a prefix decodes as a stream exactly when no byte in it is wrong. */
function firstInvalidByte(bytes: Uint8Array): number {
  let valid = 0;
  let invalid = bytes.length + 1;
  while (invalid - valid > 1) {
    const middle = (valid + invalid) >>> 1;
    if (decodePrefix(bytes, middle) === undefined) invalid = middle;
    else valid = middle;
  }
  return Buffer.byteLength(decodePrefix(bytes, valid) ?? "");
}

/** A character cut at the end is left out. */
function decodePrefix(bytes: Uint8Array, length: number): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes.subarray(0, length), {
      stream: true,
    });
  } catch {
    return undefined;
  }
}

function countLines(textBefore: string): number {
  return textBefore.split(/\r\n|\r|\n/).length;
}
