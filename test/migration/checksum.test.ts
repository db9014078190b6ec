import { describe, expect, test } from "vitest";
import { formatDigest, parseDigest, sha256Hex } from "../../src/migration/checksum.ts";

/** FIPS 180-4, the example "abc" */
const ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

describe("checksum", () => {
  test("is SHA-256 in lower-case hex", () => {
    expect(sha256Hex("abc")).toBe(ABC);
    expect(sha256Hex("")).toBe("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  });

  test("is over exact bytes: a byte order mark and a carriage return count", () => {
    expect(sha256Hex(Buffer.from("abc"))).toBe(ABC);
    expect(sha256Hex(Buffer.from("\u{feff}abc"))).not.toBe(ABC);
    expect(sha256Hex("a\r\n")).not.toBe(sha256Hex("a\n"));
    expect(sha256Hex("é")).toBe(sha256Hex(Buffer.from([0xc3, 0xa9])));
  });

  test("is read back from the text that documents write", () => {
    expect(parseDigest(formatDigest(ABC))).toBe(ABC);
  });

  test.each([
    ABC,
    `sha512:${ABC}`,
    `sha256:${ABC.toUpperCase()}`,
    `sha256:${ABC}0`,
    `sha256:${ABC.slice(1)}`,
    `sha256:${ABC}\n`,
    "sha256:",
    "",
  ])("is not read from %j", (text) => {
    expect(parseDigest(text)).toBeUndefined();
  });
});
