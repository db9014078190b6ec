import { describe, expect, test } from "vitest";
import { RunnerError } from "../../src/error.ts";
import { decodeBody } from "../../src/migration/decode.ts";

function failure(bytes: Buffer): RunnerError {
  try {
    decodeBody(bytes, "1_a.up.sql");
  } catch (error) {
    if (error instanceof RunnerError) return error;
  }
  throw new Error("nothing was refused");
}

describe("decodeBody", () => {
  test.each(["", "SELECT 1;\r\n", "é 😀 \u{10ffff}", "\u{feff}SELECT 1"])("gives %j as it was", (text) => {
    expect(decodeBody(Buffer.from(text), "1_a.up.sql")).toBe(text);
  });

  test("gives the text of a part of a larger buffer", () => {
    expect(decodeBody(Buffer.from("xSELECTx").subarray(1, 7), "1_a.up.sql")).toBe("SELECT");
  });

  test.each([
    ["latin-1", Buffer.from([0x61, 0x0a, 0xe9, 0x20]), 2, 2],
    ["a cut character at the end", Buffer.from([0x61, 0xe2, 0x82]), 1, 1],
    ["a surrogate", Buffer.from([0xed, 0xa0, 0x80]), 1, 0],
    ["an overlong slash", Buffer.from([0x0d, 0x0a, 0xc0, 0xaf]), 2, 2],
    ["UTF-16 with its mark", Buffer.from("\u{feff}a", "utf16le"), 1, 0],
  ])("refuses %s and says where it is", (_what, bytes, line, byte) => {
    const error = failure(bytes);
    expect(error.code).toBe("ENCODING");
    expect(error.message).toContain(`1_a.up.sql:${line}:`);
    expect(error.fields).toMatchObject({ migration: "1_a.up.sql", line, byte });
  });

  test("refuses a NUL character", () => {
    const error = failure(Buffer.from("SELECT 1;\n\0"));
    expect(error.code).toBe("ENCODING");
    expect(error.fields).toMatchObject({ line: 2 });
  });

  test("advises to save UTF-16 as UTF-8", () => {
    expect(failure(Buffer.from("SELECT", "utf16le"))).toMatchObject({
      code: "ENCODING",
      hint: "save the file as UTF-8",
    });
  });
});
