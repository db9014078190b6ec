/** The reflected polynomial of CRC-32C (RFC 3720 B.4); zlib's `crc32` has another one. */
const polynomial = 0x82f63b78;

/** The CRC-32C of bytes, as Google's APIs ask for and give it. */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}
