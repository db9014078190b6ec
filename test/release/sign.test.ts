import { describe, expect, test } from "vitest";

import { readEnvelopes, writeEnvelope } from "../../src/release/envelope.ts";
import { readHead, writeHead } from "../../src/release/head.ts";
import { readForeignBundles } from "../../src/release/review/foreign-bundle.ts";
import { layout } from "../../src/release/layout.ts";
import { signRelease } from "../../src/release/review/sign.ts";
import type { SignOptions } from "../../src/release/review/sign.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { findWaiting } from "../../src/release/review/waiting.ts";
import {
  makeKey,
  manifestOf,
  never,
  overwrite,
  plant,
  publishTo,
  readKey,
  signedLine,
  tempFolder,
  trustOf,
} from "../support/release.ts";
import { plantRoot, rootText, rootTrust, signedRoot } from "../support/root.ts";

const files = { "1_users.up.sql": "create table users (id int);" };
const more = { ...files, "2_email.up.sql": "alter table users add email text;" };
const [alice, bob, carol] = [makeKey(), makeKey("ed25519"), makeKey()];
const trust = trustOf([alice, bob, carol], { release: { production: { threshold: 2 } } });
const environments = ["staging", "production"];

/** A release that Alice has signed, and that waits for one more. */
async function waiting() {
  const bucket = await tempFolder();
  const { digest } = await publishTo(bucket.source, files, { keys: [alice], trust, environments });
  const sign = (options: Partial<SignOptions>) =>
    signRelease(
      {
        destination: bucket.source,
        stream: "orders",
        digest,
        keys: [bob],
        trust,
        now: new Date(),
        ...options,
      },
      never,
    );
  return { ...bucket, digest, sign };
}

describe("signing a release", () => {
  test("publishes it once the threshold is met", async () => {
    await using bucket = await waiting();
    expect(await bucket.sign({})).toEqual({
      digest: bucket.digest,
      stream: "orders",
      epoch: 1,
      version: 1,
      signers: [alice.id, bob.id],
      threshold: 2,
      environments: [
        { environment: "staging", counted: 2, threshold: 1 },
        { environment: "production", counted: 2, threshold: 2 },
      ],
      uncounted: 0,
      published: true,
    });
    const releases = signedReleases({
      source: bucket.source,
      stream: "orders",
      environment: "production",
      engine: "postgres",
      trust,
    });
    const context = {
      highWaterMark: undefined,
      expected: undefined,
      now: new Date(),
      applied: () => Promise.resolve([]),
    };
    expect((await releases.fetch(context, never)).signers).toEqual([alice.id, bob.id]);
  });

  test("a second time with the same key adds nothing", async () => {
    await using bucket = await waiting();
    expect(await bucket.sign({ keys: [alice] })).toMatchObject({ signers: [alice.id], published: false });
    await bucket.sign({});
    await bucket.sign({});
    expect(readEnvelopes(await readKey(bucket.source, layout.release(bucket.digest.slice(7))))).toHaveLength(
      2,
    );
  });

  test("by two people at once keeps both signatures", async () => {
    await using bucket = await waiting();
    const results = await Promise.all([bucket.sign({ keys: [bob] }), bucket.sign({ keys: [carol] })]);
    expect(results.map(({ published }) => published)).toEqual([true, true]);
    expect(readEnvelopes(await readKey(bucket.source, layout.release(bucket.digest.slice(7))))).toHaveLength(
      3,
    );
    expect(readHead(await readKey(bucket.source, layout.head)).digest).toBe(bucket.digest);
  });

  test("with a key that the trust does not name publishes nothing", async () => {
    await using bucket = await waiting();
    expect(await bucket.sign({ keys: [makeKey()] })).toMatchObject({
      signers: [alice.id],
      uncounted: 1,
      published: false,
    });
  });

  test("without a trust adds the signature and leaves the head where it is, for whoever knows the threshold", async () => {
    await using bucket = await waiting();
    expect(await bucket.sign({ trust: undefined })).toMatchObject({
      signers: [bob.id],
      threshold: null,
      published: false,
    });
    expect(await bucket.sign({ keys: [] })).toMatchObject({ signers: [alice.id, bob.id], published: true });
  });

  test("by eight at once keeps all of their signatures", async () => {
    await using bucket = await waiting();
    const signers = Array.from({ length: 8 }, (_, index) =>
      makeKey(index % 2 === 0 ? "ed25519" : "ecdsa-p256"),
    );
    const all = trustOf([alice, ...signers], { threshold: 9 });
    const results = await Promise.all(signers.map((one) => bucket.sign({ keys: [one], trust: all })));
    expect(results.filter(({ published }) => published).length).toBeGreaterThan(0);
    expect((await bucket.sign({ keys: [], trust: all })).signers.toSorted()).toEqual(
      [alice, ...signers].map(({ id }) => id).toSorted(),
    );
  });

  test("is not kept away by a line that only claims to be of the signer's key", async () => {
    await using bucket = await waiting();
    const path = layout.release(bucket.digest.slice(7));
    const lines = await readKey(bucket.source, path);
    const [envelope] = readEnvelopes(lines);
    const forged = writeEnvelope(envelope?.payload ?? Buffer.alloc(0), bob.public, Buffer.alloc(64));
    await overwrite(bucket.source, path, Buffer.concat([lines, Buffer.from(`${forged}\n`)]));
    expect(await bucket.sign({})).toMatchObject({ signers: [alice.id, bob.id], published: true });
  });

  test("never adds the line that would be one too many for a runner to read", async () => {
    await using bucket = await waiting();
    const path = layout.release(bucket.digest.slice(7));
    const first = await readKey(bucket.source, path);
    await overwrite(bucket.source, path, Buffer.concat(Array.from({ length: 16 }, () => first)));
    await expect(bucket.sign({})).rejects.toMatchObject({ code: "TOO_LARGE" });
    expect(readEnvelopes(await readKey(bucket.source, path))).toHaveLength(16);
  });

  test("of an expired one is RELEASE_EXPIRED, and nothing is signed", async () => {
    await using bucket = await waiting();
    const now = new Date(Date.now() + 91 * 86_400_000);
    await expect(bucket.sign({ now })).rejects.toMatchObject({ code: "RELEASE_EXPIRED" });
    expect(readEnvelopes(await readKey(bucket.source, layout.release(bucket.digest.slice(7))))).toHaveLength(
      1,
    );
  });

  test("of a release that another one has overtaken is SOURCE_CONFLICT", async () => {
    await using bucket = await waiting();
    await publishTo(bucket.source, more, { keys: [alice, bob], trust, environments });
    await expect(bucket.sign({})).rejects.toMatchObject({ code: "SOURCE_CONFLICT" });
    expect(readEnvelopes(await readKey(bucket.source, layout.release(bucket.digest.slice(7))))).toHaveLength(
      1,
    );
  });

  test("is counted as the newest root of the bucket says, not as the pinned one", async () => {
    await using bucket = await tempFolder();
    const rootKey = makeKey();
    const wish = { rootKeys: [rootKey], releaseKeys: [alice, bob], releaseThreshold: 2 };
    const anchor = rootTrust(wish);
    const { digest } = await publishTo(bucket.source, files, { keys: [alice], trust: anchor });
    await plantRoot(
      bucket.source,
      2,
      signedRoot(rootText({ ...wish, version: 2, releaseKeys: [bob, carol] }), [rootKey]),
    );
    const sign = (keys: SignOptions["keys"]) =>
      signRelease({ destination: bucket.source, digest, keys, trust: anchor, now: new Date() }, never);
    expect(await sign([bob])).toMatchObject({ signers: [bob.id], threshold: 2, published: false });
    expect(await sign([carol])).toMatchObject({ signers: [bob.id, carol.id], published: true });
  });

  test("of one whose version leaves a gap is SEQ: who signs second need not close the stream for ever", async () => {
    await using bucket = await waiting();
    const manifest = manifestOf(files);
    const head = await publishTo(bucket.source, files, { keys: [alice, bob], trust, environments });
    const version = Number.MAX_SAFE_INTEGER;
    const greedy = await plant(bucket.source, {
      manifest,
      keys: [alice],
      statement: { version, previous: head.digest, environments },
    });
    // the numbers in the head are the writer's of the bucket, too
    for (const claimed of [1, version - 1]) {
      await overwrite(
        bucket.source,
        layout.head,
        writeHead({ epoch: 1, version: claimed, digest: head.digest }),
      );
      await expect(bucket.sign({ digest: greedy })).rejects.toMatchObject({
        code: "SEQ",
        fields: { expected: 2, actual: version },
      });
    }
  });

  test("of one whose epoch leaves a gap is SEQ, unless the trust says that it is meant", async () => {
    await using bucket = await waiting();
    const first = await publishTo(bucket.source, files, { keys: [alice, bob], trust, environments });
    const head = await readKey(bucket.source, layout.head);
    const begin = (epoch: number) =>
      plant(bucket.source, {
        manifest: manifestOf(files),
        keys: [alice],
        statement: { epoch, environments },
      });
    const [greedy, next] = [await begin(Number.MAX_SAFE_INTEGER), await begin(2)];
    await overwrite(bucket.source, layout.head, head);
    const refusal = { code: "SEQ", fields: { expected: 2, actual: Number.MAX_SAFE_INTEGER } };
    await expect(bucket.sign({ digest: greedy })).rejects.toMatchObject(refusal);
    const meant = { ...trust, epoch: Number.MAX_SAFE_INTEGER };
    expect(await bucket.sign({ digest: next })).toMatchObject({ published: true, epoch: 2 });
    expect(first).toMatchObject({ epoch: 1, version: 1 });
    expect(await bucket.sign({ digest: greedy, trust: meant })).toMatchObject({ published: true });
  });

  test("of another stream, another digest or other bytes under its name is refused", async () => {
    await using bucket = await waiting();
    await expect(bucket.sign({ stream: "billing" })).rejects.toMatchObject({ code: "WRONG_STREAM" });
    await expect(bucket.sign({ digest: `sha256:${"0".repeat(64)}` })).rejects.toMatchObject({
      code: "RELEASE_NOT_FOUND",
    });
    await using other = await tempFolder();
    const { digest } = await publishTo(other.source, more, { keys: [alice] });
    const lines = await readKey(other.source, layout.release(digest.slice(7)));
    await overwrite(bucket.source, layout.release(bucket.digest.slice(7)), lines);
    await expect(bucket.sign({})).rejects.toMatchObject({ code: "UNEXPECTED_RELEASE" });
  });
});

describe("a bundle that another tool made", () => {
  const payloadOf = async (bucket: Awaited<ReturnType<typeof waiting>>): Promise<Buffer> => {
    const [envelope] = readEnvelopes(await readKey(bucket.source, layout.release(bucket.digest.slice(7))));
    return envelope?.payload ?? Buffer.alloc(0);
  };

  test("is added as it is, counts, and is not added twice", async () => {
    await using bucket = await waiting();
    const line = signedLine(await payloadOf(bucket), bob);
    const bundles = readForeignBundles(
      Buffer.from(`${JSON.stringify(JSON.parse(line), null, 2)}\n`),
      "a file",
    );
    for (const again of [1, 2]) {
      expect(await bucket.sign({ keys: [], bundles }), String(again)).toMatchObject({
        signers: [alice.id, bob.id],
        published: true,
      });
    }
    const path = layout.release(bucket.digest.slice(7));
    expect(readEnvelopes(await readKey(bucket.source, path))).toHaveLength(2);
  });

  test("over other bytes, or by another key than it names, is refused, and nothing is written", async () => {
    await using bucket = await waiting();
    const path = layout.release(bucket.digest.slice(7));
    const before = await readKey(bucket.source, path);
    const payload = await payloadOf(bucket);
    const cases = [
      [signedLine(Buffer.from("{}"), bob), "PAYLOAD_DIFFERS"],
      [signedLine(payload, { ...carol, public: bob.public }), "BUNDLE"],
      [JSON.stringify({ base64Signature: "AAAA" }), "BUNDLE"],
    ] as const;
    for (const [line, code] of cases) {
      await expect(bucket.sign({ keys: [], bundles: [line] })).rejects.toMatchObject({ code });
    }
    expect((await readKey(bucket.source, path)).equals(before)).toBe(true);
  });

  test("of a key that nobody trusts yet is added, and told not to count", async () => {
    await using bucket = await waiting();
    const line = signedLine(await payloadOf(bucket), makeKey());
    expect(await bucket.sign({ keys: [], bundles: [line] })).toMatchObject({
      signers: [alice.id],
      uncounted: 1,
      published: false,
    });
  });

  test("may be one of several lines of a file", () => {
    const lines = [signedLine(Buffer.from("{}"), alice), signedLine(Buffer.from("{}"), bob)];
    expect(readForeignBundles(Buffer.from(`${lines.join("\r\n")}\n\n`), "a file")).toEqual(lines);
    for (const rubbish of ["", "no bundle", "{", '{"a":1,"a":2}']) {
      expect(() => readForeignBundles(Buffer.from(rubbish), "a file")).toThrow(/a file/);
    }
  });
});

describe("releases that wait", () => {
  test("are those above the head, lowest first, whatever else lies beside them", async () => {
    await using bucket = await tempFolder();
    expect(await findWaiting(bucket.source, never)).toEqual({ releases: [], unreadable: 0 });
    const first = await publishTo(bucket.source, files, { keys: [alice, bob], trust, environments });
    expect((await findWaiting(bucket.source, never)).releases).toEqual([]);
    const second = await publishTo(bucket.source, more, { keys: [alice], trust, environments });
    const third = await publishTo(bucket.source, more, { keys: [alice], trust, environments, epoch: 2 });
    await overwrite(bucket.source, "releases/readme.txt", Buffer.from("?"));
    await overwrite(bucket.source, layout.release("0".repeat(64)), Buffer.from("?"));
    await overwrite(
      bucket.source,
      layout.release("1".repeat(64)),
      await readKey(bucket.source, layout.release(first.digest.slice(7))),
    );
    const found = await findWaiting(bucket.source, never);
    expect(found.releases.map(({ digest }) => digest)).toEqual([second.digest, third.digest]);
    expect(found.unreadable).toBe(3);
  });
});
