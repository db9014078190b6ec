import { gzipSync } from "node:zlib";

import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { sha256Hex } from "../../src/migration/checksum.ts";
import { readHead, writeHead } from "../../src/release/head.ts";
import { layout } from "../../src/release/layout.ts";
import { releaseLimits } from "../../src/release/limits.ts";
import { readManifest, writeManifest } from "../../src/release/manifest.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { readStatement, writeStatement } from "../../src/release/statement.ts";
import type { ReleaseStatement } from "../../src/release/statement.ts";
import { parseStrictJson } from "../../src/release/strict-json.ts";
import type { Source } from "../../src/source/source.ts";
import {
  makeKeys,
  manifestOf,
  never,
  overwrite,
  plant,
  readKey,
  tempFolder,
  signedLine,
} from "../support/release.ts";
import { processorMs } from "../support/processor.ts";

const files = {
  "0001_users.up.sql": "create table users (id int);",
  "0002_email.up.sql": "alter table users add email text;",
};

function codeOf(reading: () => unknown): string {
  try {
    reading();
  } catch (error) {
    if (error instanceof RunnerError) return error.code;
    throw error;
  }
  return "read";
}

function strict(text: string | Uint8Array): unknown {
  return parseStrictJson(Buffer.from(text), "the text", 1 << 20);
}

const statement: ReleaseStatement = {
  stream: "orders",
  epoch: 1,
  version: 7,
  previous: `sha256:${"a".repeat(64)}`,
  manifestSha256: "0".repeat(64),
  manifestSize: 100,
  chain: { length: 1, head: "1".repeat(64) },
  environments: ["default"],
  issued: new Date("2026-11-20T10:00:00Z"),
  expires: new Date("2027-02-18T10:00:00Z"),
  source: { uri: "git+https://git.example/orders", gitCommit: "3f2a9b1c0d4e5f60718293a4b5c6d7e8f9012345" },
};

/** The signed statement and the manifest with one piece of their text replaced. */
const statementWith = (from: string | RegExp, to: string): Buffer =>
  edited(writeStatement(statement), from, to);
const manifestWith = (from: string | RegExp, to: string): Buffer =>
  edited(writeManifest(manifestOf(files)), from, to);

function edited(bytes: Buffer, from: string | RegExp, to: string): Buffer {
  const text = bytes.toString();
  const result = text.replace(from, to);
  expect(result).not.toBe(text);
  return Buffer.from(result);
}

describe("strict JSON", () => {
  test("accepts a subset of JSON.parse and gives equal values", () => {
    const near = fc.oneof(
      fc.json(),
      fc
        .tuple(
          fc.json(),
          fc.nat(),
          fc.constantFrom(...'{}[],:"\\ \n\t0-1.eEtfnu\u0000\ufeff'.split(""), "\ud800"),
        )
        .map(([text, at, piece]) => {
          const index = at % (text.length + 1);
          return text.slice(0, index) + piece + text.slice(index);
        }),
      fc.tuple(fc.json(), fc.nat(), fc.nat(8)).map(([text, at, count]) => {
        const index = at % (text.length + 1);
        return text.slice(0, index) + text.slice(index + count);
      }),
    );
    fc.assert(
      fc.property(near, (text) => {
        let value: unknown;
        try {
          value = strict(text);
        } catch (error) {
          return error instanceof RunnerError;
        }
        // a lone surrogate becomes U+FFFD on its way to bytes
        expect(value).toStrictEqual(JSON.parse(text.toWellFormed()));
        return true;
      }),
      { numRuns: 3_000 },
    );
  });

  test("accepts everything that has one reading: names once, plain integers, depth 16", () => {
    const key = fc.string({ unit: "grapheme" }).filter((name) => name.isWellFormed());
    const value = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(null, true, false),
        fc.nat(Number.MAX_SAFE_INTEGER),
        key,
        fc.array(tie("value"), { maxLength: 4 }),
        fc.dictionary(key, tie("value"), { maxKeys: 4 }),
      ),
    })).value;
    fc.assert(
      fc.property(value, fc.nat(3), (plain, indent) => {
        expect(strict(JSON.stringify(plain, null, indent))).toStrictEqual(JSON.parse(JSON.stringify(plain)));
      }),
      { numRuns: 1_000 },
    );
  });

  test.for([
    ["two equal names", '{"a":1,"a":2}'],
    ["two equal names with equal values", '{"a":1,"a":1}'],
    ["a name in two spellings", '{"a":1,"\\u0061":1}'],
    ["two equal names deep inside", '[{"b":[{"a":{},"c":"a","a":{}}]}]'],
    ["__proto__ twice", '{"__proto__":1,"__proto__":1}'],
    ["an escaped quote in a name twice", '{"\\"a":1,"\\u0022a":1}'],
  ] as const)("32 %s are JSON_DUPLICATE", ([, text]) => {
    expect(codeOf(() => strict(text))).toBe("JSON_DUPLICATE");
  });

  test("does not take a string for a name, nor an equal name of another object for a duplicate", () => {
    expect(strict('{"a":"a","b":["a","a"],"c":{"a":{"a":"\\\\"}},"d":"{\\"a\\":1"}')).toStrictEqual({
      a: "a",
      b: ["a", "a"],
      c: { a: { a: "\\" } },
      d: '{"a":1',
    });
  });

  test.for([
    "3.0",
    "1e2",
    "-0",
    "-1",
    "1E0",
    "0.5",
    "9007199254740992",
    "9007199254740993",
    "12345678901234567890",
  ])("33 the number %s is JSON_NUMBER", (number) => {
    expect(codeOf(() => strict(`{"a":[${number}]}`))).toBe("JSON_NUMBER");
  });

  test.for([
    ["a byte order mark", "\ufeff{}"],
    ["a comment", '{"a":1}// b'],
    ["trailing data", "{}{}"],
    ["a trailing comma", '{"a":1,}'],
    ["single quotes", "{'a':1}"],
    ["nothing", ""],
    ["a lone surrogate", '{"a":"\\ud800"}'],
    ["a lone surrogate in a name", '{"\\udc00\\ud800":1}'],
    ["NaN", '{"a":NaN}'],
  ] as const)("34 %s is JSON_SYNTAX", ([, text]) => {
    expect(codeOf(() => strict(text))).toBe("JSON_SYNTAX");
  });

  test("34 bytes that are not UTF-8 are JSON_SYNTAX", () => {
    for (const bytes of [
      [0x22, 0xff, 0x22],
      [0x22, 0xc0, 0xaf, 0x22],
      [0x22, 0xed, 0xa0, 0x80, 0x22],
      [0xff, 0xfe, 0x7b, 0],
    ]) {
      expect(codeOf(() => strict(Uint8Array.from(bytes)))).toBe("JSON_SYNTAX");
    }
  });

  test("35 depth 17, and depth 100,000, is TOO_LARGE", () => {
    expect(codeOf(() => strict("[".repeat(16) + "]".repeat(16)))).toBe("read");
    expect(codeOf(() => strict("[".repeat(17) + "]".repeat(17)))).toBe("TOO_LARGE");
    expect(codeOf(() => strict("[".repeat(100_000) + "]".repeat(100_000)))).toBe("TOO_LARGE");
    expect(codeOf(() => strict('{"a":'.repeat(100_000) + "1" + "}".repeat(100_000)))).toBe("TOO_LARGE");
  });
});

describe("a signed statement", () => {
  test("comes back as it was written", () => {
    expect(readStatement(writeStatement(statement))).toStrictEqual(statement);
  });

  test.for([
    ["32 a name twice", /"version":7/, '"version":7,"version":7', "JSON_DUPLICATE"],
    ["32 a name twice, once escaped", /"version":7/, '"version":7,"\\u0076ersion":8', "JSON_DUPLICATE"],
    ["33 a number as 7.0", /"version":7/, '"version":7.0', "JSON_NUMBER"],
    ["33 a text for a number", /"version":7/, '"version":"7"', "JSON_NUMBER"],
    ["33 version zero", /"version":7/, '"version":0', "SCHEMA"],
    ["34 an unknown field", /"version":7/, '"version":7,"note":"x"', "SCHEMA"],
    ["34 __proto__", /"version":7/, '"version":7,"__proto__":{"version":8}', "SCHEMA"],
    ["a field left out", /"version":7,/, "", "SCHEMA"],
    [
      "two subjects",
      /\]\s*,"predicateType/,
      ',{"name":"b","digest":{"sha256":"00"}}],"predicateType',
      "SCHEMA",
    ],
    ["a day that does not exist", "2026-11-20T10", "2026-11-31T10", "SCHEMA"],
    ["a time of another zone", "10:00:00Z", "10:00:00+01:00", "SCHEMA"],
    ["an upper-case digest", "a".repeat(64), "A".repeat(64), "SCHEMA"],
    ["a stream that is a path", '"stream":"orders"', '"stream":"../orders"', "SCHEMA"],
    ["no environment", '["default"]', "[]", "SCHEMA"],
    ["another predicate", "release:v1", "release:v2", "PREDICATE_TYPE"],
    ["another statement type", "Statement/v1", "Statement/v2", "SCHEMA"],
  ] as const)("%s in it is refused", ([, from, to, code]) => {
    expect(codeOf(() => readStatement(statementWith(from, to)))).toBe(code);
  });

  test("of in-toto v0.1, as cosign writes it, is the same", () => {
    expect(readStatement(statementWith("Statement/v1", "Statement/v0.1"))).toStrictEqual(statement);
  });
});

describe("a manifest", () => {
  test("comes back as it was written, with every field", () => {
    const [first, second] = manifestOf(files).migrations;
    if (first === undefined || second === undefined) throw new Error("two migrations were written");
    const whole: Manifest = {
      ...manifestOf(files),
      migrations: [
        {
          ...first,
          locks: ["ACCESS EXCLUSIVE", "SHARE"],
          down: {
            path: "0001_users.down.sql",
            sha256: "2".repeat(64),
            size: 0,
            tx: "one",
            alone: false,
            locks: [],
          },
        },
        {
          ...second,
          tx: "none",
          alone: false,
          statements: [{ offset: 0, length: 32, kind: "create-index-concurrently" }],
        },
      ],
      pack: {
        sha256: "3".repeat(64),
        size: 61,
        offsets: [
          { seq: 1, offset: 0 },
          { seq: 2, offset: 28 },
        ],
      },
    };
    expect(readManifest(writeManifest(whole))).toEqual(whole);
  });

  test.for([
    ["32 a name twice", '"alone":true', '"alone":true,"alone":true', "JSON_DUPLICATE"],
    ["33 a number as 1e0", '"seq":1', '"seq":1e0', "JSON_NUMBER"],
    ["33 a text for a number", '"seq":1', '"seq":"1"', "JSON_NUMBER"],
    ["34 an unknown field", '"alone":true', '"alone":true,"sql":"drop"', "SCHEMA"],
    ["34 a byte order mark", /^/, "\ufeff", "JSON_SYNTAX"],
    ["34 trailing data", /$/, "{}", "JSON_SYNTAX"],
    ["a body above the ceiling", /"size":\d+/, `"size":${releaseLimits.blobBytes + 1}`, "SCHEMA"],
    ["an unknown way to run", '"tx":"one"', '"tx":"all"', "SCHEMA"],
    ["a version that is none", '"version":"0001"', '"version":"1.a"', "SCHEMA"],
    ["a version twice", '"version":"0002"', '"version":"1"', "DUPLICATE_VERSION"],
    ["a version twice, once with a part more", '"version":"0002"', '"version":"1.0"', "DUPLICATE_VERSION"],
    ["statements beside one transaction", '"tx":"one"', '"tx":"one","statements":[]', "SCHEMA"],
    ["no statements outside one", '"tx":"one"', '"tx":"none"', "SCHEMA"],
    [
      "a statement beyond its body",
      '"tx":"one"',
      '"tx":"none","statements":[{"offset":20,"length":9,"kind":"vacuum"}]',
      "SCHEMA",
    ],
    ["another schema", "manifest:v1", "manifest:v2", "SCHEMA"],
    [
      "a pack that is too short",
      '"parser":',
      '"pack":{"sha256":"PACK","size":5,"offsets":[{"seq":1,"offset":0}]},"parser":',
      "SCHEMA",
    ],
    [
      "a pack with a body of nobody",
      '"parser":',
      '"pack":{"sha256":"PACK","size":99,"offsets":[{"seq":3,"offset":0}]},"parser":',
      "SCHEMA",
    ],
  ] as const)("%s in it is refused", ([, from, to, code]) => {
    expect(codeOf(() => readManifest(manifestWith(from, to.replace("PACK", "0".repeat(64)))))).toBe(code);
  });

  test.for([
    ["a parent", "../0001_users.up.sql"],
    ["an absolute path", "/etc/passwd"],
    ["NUL", "0001\\u0000.up.sql"],
    ["a dot first", ".0001.up.sql"],
    ["a letter with a combining accent", "0001_e\\u0301.up.sql"],
    ["a Cyrillic letter", "0001_us\\u0435rs.up.sql"],
    ["text that turns right to left", "0001_\\u202elqs.pu"],
    ["a space", "0001 users.up.sql"],
    ["a line end", "0001_users.up.sql\\n"],
    ["300 characters", "1".repeat(300)],
    ["nothing", ""],
    ["another one's label in upper case", "0002_EMAIL.up.sql"],
  ] as const)("37 %s for a label is NAME", ([, label]) => {
    expect(codeOf(() => readManifest(manifestWith('"path":"0001_users.up.sql"', `"path":"${label}"`)))).toBe(
      "NAME",
    );
  });

  test("37 with the name of a device for a label is harmless: no file is ever called by it", () => {
    expect(readManifest(manifestWith('"path":"0001_users.up.sql"', '"path":"CON"')).migrations[0]?.path).toBe(
      "CON",
    );
  });

  test("of 10,000 migrations is read and its chain verified in time in proportion to their number", () => {
    const many = Object.fromEntries(
      Array.from({ length: 10_000 }, (_, index) => [
        `${String(index + 1).padStart(6, "0")}_step.up.sql`,
        `select ${index};`,
      ]),
    );
    const bytes = writeManifest(manifestOf(many));
    expect(readManifest(bytes).migrations).toHaveLength(10_000);
    // a fiftieth of this; a minute and more if the chain were hashed from its start for each of them
    expect(processorMs(() => readManifest(bytes))).toBeLessThan(10_000);
  });
});

describe("a head", () => {
  test("with a flipped bit is refused, or points to the same release, or to none", async () => {
    await using folder = await tempFolder();
    const { key, trust } = makeKeys();
    const digest = await plant(folder.source, { manifest: manifestOf(files), keys: [key] });
    const bytes = await readKey(folder.source, layout.head);
    const outcomes = new Set<string>();
    let elsewhere = bytes;
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = Buffer.from(bytes);
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const code = codeOf(() => readHead(flipped));
      const isSame = code === "read" && readHead(flipped).digest === digest;
      if (code === "read" && !isSame) elsewhere = flipped;
      outcomes.add(code === "read" ? (isSame ? "the same" : "another") : code);
    }
    expect([...outcomes].toSorted()).toEqual(["JSON_SYNTAX", "SCHEMA", "another", "the same"]);
    await overwrite(folder.source, layout.head, elsewhere);
    await expect(fetchFrom(folder.source, trust)).rejects.toMatchObject({ code: "RELEASE_NOT_FOUND" });
  });

  test("that was cut anywhere is refused", () => {
    const bytes = writeHead({ epoch: 1, version: 2, digest: `sha256:${"0".repeat(64)}` });
    for (let length = 0; length < bytes.length - 1; length++) {
      expect(codeOf(() => readHead(bytes.subarray(0, length)))).toBe("JSON_SYNTAX");
    }
  });
});

describe("objects without end", () => {
  test("35 a release of 10,000 lines, of a line above 64 KiB, or above 1 MiB is TOO_LARGE", async () => {
    await using folder = await tempFolder();
    const { key, trust } = makeKeys();
    const manifest = manifestOf(files);
    const line = (payload: Buffer) => signedLine(payload, key);
    for (const lines of [
      (payload: Buffer) => Array.from({ length: 17 }, () => line(payload)),
      (payload: Buffer) => Array.from({ length: 10_000 }, () => line(payload)),
      (payload: Buffer) => [line(payload) + " ".repeat(releaseLimits.bundleBytes)],
    ]) {
      await plant(folder.source, { manifest, keys: [key], lines });
      await expect(fetchFrom(folder.source, trust)).rejects.toMatchObject({ code: "TOO_LARGE" });
    }
  });

  test("35 a manifest that never ends is given up at the signed length", async () => {
    await using folder = await tempFolder();
    const { key, trust } = makeKeys();
    const manifest = manifestOf(files);
    await plant(folder.source, { manifest, keys: [key] });
    await overwrite(
      folder.source,
      layout.manifest(sha256Hex(writeManifest(manifest))),
      Buffer.alloc(8 << 20, 0x20),
    );
    await expect(fetchFrom(folder.source, trust)).rejects.toMatchObject({ code: "MANIFEST_DIGEST" });
  });

  test("36 a compressed body is BLOB_DIGEST and not inflated", async () => {
    await using folder = await tempFolder();
    const { key, trust } = makeKeys();
    const manifest = manifestOf(files);
    await plant(folder.source, { manifest, keys: [key] });
    for (const [path, content] of Object.entries(files)) {
      await overwrite(
        folder.source,
        layout.blob(sha256Hex(content)),
        path.startsWith("0001") ? gzipSync(content) : Buffer.from(content),
      );
    }
    const releases = providerOf(folder.source, trust);
    const release = await fetchFrom(folder.source, trust, releases);
    await expect(releases.bodies(release, release.migrations, never)).rejects.toMatchObject({
      code: "BLOB_DIGEST",
    });
  });
});

function providerOf(source: Source, trust: Parameters<typeof signedReleases>[0]["trust"]) {
  return signedReleases({ source, stream: "orders", environment: "default", engine: "postgres", trust });
}

async function fetchFrom(
  source: Source,
  trust: Parameters<typeof providerOf>[1],
  releases = providerOf(source, trust),
) {
  const context = {
    highWaterMark: undefined,
    expected: undefined,
    now: new Date(),
    applied: () => Promise.resolve([]),
  };
  return releases.fetch(context, never);
}
