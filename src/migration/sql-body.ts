import { decodeBody } from "./decode.ts";
import { parseHeader } from "./header.ts";
import type { Header } from "./header.ts";
import type { TxMode } from "./migration.ts";

/** One body, decoded, with its header read. */
export interface SqlBody {
  readonly path: string;
  readonly bytes: Buffer;
  readonly text: string;
  readonly header: Header;
}

/**
 * Decodes a body and reads its header.
 *
 * @param tx - holds where the header says nothing of it
 * @throws RunnerError `ENCODING`, `HEADER`
 */
export function readBody(bytes: Uint8Array, path: string, tx?: TxMode): SqlBody {
  const text = decodeBody(bytes, path);
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return { path, bytes: buffer, text, header: { ...(tx && { tx }), ...parseHeader(text, path) } };
}

/** Whether there is nothing but white space, perhaps after a byte order mark. */
export function isBlank(text: string): boolean {
  return /^\ufeff?[ \t\n\v\f\r]*$/.test(text);
}

/** The index into the text (UTF-16 code units) of a byte. */
export function unitOffset({ bytes }: SqlBody, byteOffset: number): number {
  return bytes.toString("utf8", 0, byteOffset).length;
}
