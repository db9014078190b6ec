import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import fc from "fast-check";
import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { emptyChain, nextChain } from "../../src/release/chain.ts";
import { parsePublicKey } from "../../src/release/trust/key.ts";
import { readManifest, writeManifest } from "../../src/release/manifest.ts";
import { writeStatement } from "../../src/release/statement.ts";
import { makeTrust } from "../../src/release/trust/trust.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { verifyManifest, verifyStatement } from "../../src/release/verify.ts";
import type { VerifiedRelease } from "../../src/release/verify.ts";
import { sha256Hex } from "../../src/migration/checksum.ts";
import { makeKeys, manifestOf, signedLine } from "../support/release.ts";

const folder = join(import.meta.dirname, "../vectors/release");
const names = readdirSync(folder).filter((name) => name.endsWith(".jsonl"));
const now = new Date("2026-11-21T00:00:00Z");

function vector(name: string): Buffer {
  return readFileSync(join(folder, name));
}

function judge(release: Buffer, manifest: Buffer, trust: Trust): VerifiedRelease {
  const expectations = {
    stream: "orders",
    environment: "production",
    engine: "postgres",
    trust,
    now,
  } as const;
  const statement = verifyStatement(release, {
    ...expectations,
    highWaterMark: undefined,
    expected: undefined,
  });
  return verifyManifest(statement, manifest);
}

function codeOf(judging: () => unknown): string {
  try {
    judging();
  } catch (error) {
    if (error instanceof RunnerError) return error.code;
    throw error;
  }
  return "good";
}

describe("the vectors of test/vectors/release", () => {
  const keys = ["p256.pub", "ed25519.pub"].map((name) => parsePublicKey(vector(name).toString(), name));
  const trust = makeTrust({ keys: ["p256.pub", "ed25519.pub"] }, keys, "the vectors' trust");

  test.for(names)("%s is judged as its name says", (name) => {
    const wanted = /^(?:good|fail_([A-Z0-9_]+?))_[a-z0-9_.]/.exec(name)?.[1] ?? "good";
    expect(codeOf(() => judge(vector(name), vector("manifest.json"), trust))).toBe(wanted);
  });

  test("are taken with their digest, chain and every field of the manifest", () => {
    const release = judge(vector("good_p256.jsonl"), vector("manifest.json"), trust);
    expect(release.digest).toBe("sha256:af5d445a3d5942d5fdfa2f76a166e71ead7a486310ae90aeff3adc23ca5aa6b4");
    expect(writeManifest(readManifest(vector("manifest.json")))).toEqual(vector("manifest.json"));
    expect(
      judge(vector("good_both_and_a_stranger.jsonl"), vector("manifest.json"), trust).signers,
    ).toHaveLength(2);
  });
});

describe("the chain", () => {
  // computed with printf and sha256sum, as infra/verify.md shows
  const example = [
    [
      "0001_init.up.sql",
      "a9d109a31841f2c7993d3bf8cd36801260682f0121fc97a95b9e2eeb53445d69",
      36,
      "ab2be81889005314ae2d4162cbbfc522aead7c5f000706fbb5e499ff21c61bdc",
    ],
    [
      "0002_add_b.up.sql",
      "e6ddc0b41646982db71ae79e6e7ecbb789084fa07740833588ed261801a73e54",
      36,
      "9828a04455e1c7ceff0800d95cd2a652eb32cbd3c707929ab86116b8ad2c38d5",
    ],
    [
      "0003_idx.up.sql",
      "05e7ca9271ad71ac42c2c94d49be663bb36b9cb4bff862765a3ba32babfca056",
      40,
      "c613ee538b95a19ecc2299147ba34bdad65c4add78e2e0462a609be95ac21da8",
    ],
  ] as const;

  test("is what a shell computes", () => {
    let chain = emptyChain("orders");
    for (const [index, [path, sha256, size, wanted]] of example.entries()) {
      chain = nextChain(chain, { seq: index + 1, path, sha256, size });
      expect(chain).toBe(wanted);
    }
  });

  test("holds for no other order, choice or repetition of migrations, even when that is signed", () => {
    const { key, trust } = makeKeys();
    const manifest = manifestOf(
      Object.fromEntries(
        ["a", "b", "c", "d", "e"].map((title, index) => [`${index + 1}_${title}.up.sql`, `select ${index};`]),
      ),
    );
    const { migrations } = manifest;
    const chain = { length: migrations.length, head: migrations.at(-1)?.chain ?? "" };
    const sign = (bytes: Buffer) =>
      Buffer.from(
        signedLine(
          writeStatement({
            stream: "orders",
            epoch: 1,
            version: 1,
            previous: null,
            manifestSha256: sha256Hex(bytes),
            manifestSize: bytes.length,
            chain,
            environments: ["production"],
            issued: new Date("2026-11-20T10:00:00Z"),
            expires: new Date("2027-02-18T10:00:00Z"),
          }),
          key,
        ),
      );
    const whole = writeManifest(manifest);
    expect(judge(sign(whole), whole, trust).migrations).toHaveLength(5);
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...migrations), { maxLength: 7 }), (chosen) => {
        fc.pre(
          chosen.length !== migrations.length ||
            chosen.some((migration, index) => migration !== migrations[index]),
        );
        const bytes = writeManifest({ ...manifest, migrations: chosen });
        expect(["SEQ", "CHAIN", "CHAIN_HEAD", "NAME", "DUPLICATE_VERSION"]).toContain(
          codeOf(() => judge(sign(bytes), bytes, trust)),
        );
      }),
    );
  });
});
