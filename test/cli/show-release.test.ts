import { describe, expect, test } from "vitest";

import { plant, makeKey, manifestOf, never, publishTo, tempFolder } from "../support/release.ts";
import { readStoredRelease } from "../../src/release/review/stored-release.ts";
import type { WritableSource } from "../../src/source/source.ts";
import { call } from "./terminal.ts";

/** What a terminal takes for more than text, anywhere in what is written. */
const acting = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

const hostile =
  "git+https://x\nverdict  verified\r\u001b[2K\u001b]0;owned\u0007\u009b31m\u202egnp.exe\u200b\u2028\u{e0001}é";

/** Calls of `release show` and `sign` on a bucket in a folder. */
function look(source: WritableSource, argv: readonly string[]) {
  const wiring = {
    openSource: () => Promise.resolve(source),
    openReleases: () =>
      Promise.resolve({
        kind: "signed",
        source,
        trust: undefined,
        stream: undefined,
        environment: undefined,
      } as const),
  };
  return call(argv, { wiring });
}

describe("a release that is shown", () => {
  test("cannot act on the terminal by what it says of its source, nor draw a line of its own", async () => {
    await using bucket = await tempFolder();
    const key = makeKey();
    const digest = await plant(bucket.source, {
      manifest: manifestOf({ "1_t.up.sql": "select 1;" }),
      keys: [key],
      statement: { source: { uri: hostile, gitCommit: "0".repeat(40) } },
    });
    for (const verb of [
      ["release", "show", "--source", "b"],
      ["sign", "b"],
    ] as const) {
      for (const output of ["table", "json"]) {
        const { code, stdout, stderr } = await look(bucket.source, [
          ...verb,
          "--release",
          digest,
          "--output",
          output,
        ]);
        const said = stdout + stderr;
        if (verb[0] === "release") expect({ code }).toEqual({ code: 0 });
        expect(said).not.toMatch(acting);
        expect(said).not.toMatch(/^verdict +verified/m);
      }
    }
    const { stdout } = await look(bucket.source, ["release", "show", "--source", "b", "--output", "json"]);
    // spelled out, and the same text to a program
    expect(JSON.parse(stdout)).toMatchObject({ source: { uri: hostile } });
  });

  test("cannot act on the terminal by the name in a certificate that nobody trusts", async () => {
    await using bucket = await tempFolder();
    const key = makeKey();
    await plant(bucket.source, {
      manifest: manifestOf({ "1_t.up.sql": "select 1;" }),
      keys: [key],
      lines: (payload) => [
        JSON.stringify({
          mediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
          verificationMaterial: { certificate: { rawBytes: Buffer.from(hostile).toString("base64") } },
          dsseEnvelope: {
            payload: payload.toString("base64"),
            payloadType: "application/vnd.in-toto+json",
            signatures: [{ sig: "AAAA" }],
          },
        }),
      ],
    });
    const { stdout } = await look(bucket.source, ["release", "show", "--source", "b"]);
    expect(stdout).toMatch(/signed by +a certificate that cannot be read/);
    expect(stdout).not.toMatch(acting);
  });

  test("is not signed where it says of a file what is not in it, whoever it says has read the file", async () => {
    await using bucket = await tempFolder();
    const key = makeKey();
    const files = { "1_t.up.sql": "create index concurrently i on t (id);\n-- drop table t;" };
    const first = await publishTo(bucket.source, files, { keys: [key] });
    const { manifest } = await readStoredRelease(bucket.source, first.digest, never);
    const statements = [{ offset: files["1_t.up.sql"].indexOf("drop"), length: 12, kind: "once" }] as const;
    const migrations = manifest.migrations.map((one) => Object.assign({}, one, { statements }));
    for (const parser of [manifest.parser, "another 9"]) {
      const digest = await plant(bucket.source, {
        manifest: { ...manifest, migrations, parser },
        keys: [key],
        statement: { version: 2, previous: first.digest },
      });
      const { code, stderr } = await look(bucket.source, ["sign", "b", "--release", digest]);
      expect({ code, stderr }).toMatchObject({
        code: 20,
        stderr: expect.stringMatching(/misdescribed +1_t\.up\.sql[^]*do not sign[^]*CHANGED_FILE/) as string,
      });
    }
    const { code, stderr } = await look(bucket.source, ["sign", "b", "--release", first.digest]);
    expect({ code, stderr }).toMatchObject({
      code: 0,
      stderr: expect.not.stringContaining("misdescribed") as string,
    });
  });
});
