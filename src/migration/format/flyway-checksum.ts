import { crc32 } from "node:zlib";

/**
 * The checksum that Flyway notes of a script in `flyway_schema_history`: CRC-32 over its lines without their ends and
 * without a byte order mark, as a signed 32-bit integer (ChecksumCalculator.java). Not a protection against anybody.
 *
 * @param bytes - the file; of a repeatable migration the text with its placeholders replaced
 */
export function flywayChecksum(bytes: Uint8Array): number {
  const hasMark = BYTE_ORDER_MARK.every((byte, i) => bytes[i] === byte);
  const body = hasMark ? bytes.subarray(BYTE_ORDER_MARK.length) : bytes;
  return crc32(body.filter((byte) => byte !== LF && byte !== CR)) | 0;
}

const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf] as const;
const LF = 0x0a;
const CR = 0x0d;
