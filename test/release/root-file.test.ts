import { execFile } from "node:child_process";
import { appendFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";

import { describe, expect, onTestFinished, test } from "vitest";

import { readForeignBundles } from "../../src/release/review/foreign-bundle.ts";
import { layout } from "../../src/release/layout.ts";
import { draftFirstRoot, draftNextRoot } from "../../src/release/root/root-draft.ts";
import type { NamedKey, RootChanges } from "../../src/release/root/root-draft.ts";
import { createRootFile, pathBeside, readRootFile, signRootFile } from "../../src/release/root/root-file.ts";
import { publishRoot } from "../../src/release/root/root-publish.ts";
import type { PublishedRoot } from "../../src/release/root/root-publish.ts";
import { writeRootStatement } from "../../src/release/root/root-statement.ts";
import { verifyNextRoot } from "../../src/release/root/root-walk.ts";
import { readRoot, readRootText } from "../../src/release/root/root.ts";
import { needs, part } from "../support/parts.ts";
import { makeKey, never, overwrite, recorded, signedLine, tempFolder } from "../support/release.ts";
import type { TestKey } from "../support/release.ts";
import { linesOf, pinned, plantRoot, rootText, signedRoot } from "../support/root.ts";

const run = promisify(execFile);
const [alice, bob, carol, ci, newCi] = [makeKey(), makeKey("ed25519"), makeKey(), makeKey(), makeKey()];
const named = (...keys: readonly TestKey[]): readonly NamedKey[] =>
  keys.map((key, index) => ({ key: key.public, name: `key-${index}` }));
const expires = new Date("2100-01-01T00:00:00Z");
const first = draftFirstRoot({
  org: "acme",
  streams: ["orders", "billing"],
  environments: ["default", "production"],
  rootKeys: named(alice, bob, carol),
  releaseKeys: named(ci),
  timestampKeys: [],
  expires,
});
const nothing: RootChanges = {
  addRootKeys: [],
  addReleaseKeys: [],
  addTimestampKeys: [],
  drop: [],
  epochs: new Map(),
  minVersions: new Map(),
  revoke: [],
  expires,
};
const next = (changes: Partial<RootChanges>): Buffer =>
  draftNextRoot(readRootText(first), { ...nothing, ...changes });

/** A folder with these roots in it, gone with the test. */
async function folderWith(files: Readonly<Record<string, Buffer>>): Promise<string> {
  const folder = await tempFolder(files);
  onTestFinished(() => folder[Symbol.asyncDispose]());
  return folder.path;
}

describe("a draft", () => {
  test("of a first root asks for more than half of its keys", () => {
    expect(readRoot(first)).toMatchObject({ version: 1, signers: { threshold: 2 }, timestamp: null });
    expect(readRoot(first).names.get(alice.id)).toBe("key-0");
  });

  test("of the next one changes what is asked for and nothing else", () => {
    const digest = `sha256:${"d".repeat(64)}`;
    const bytes = next({
      drop: [ci.id, carol.id],
      addReleaseKeys: named(newCi),
      addTimestampKeys: named(bob),
      rootThreshold: 1,
      epochs: new Map([["orders", 2]]),
      minVersions: new Map([["billing", 7]]),
      revoke: [digest],
    });
    const root = readRoot(bytes);
    expect(root).toMatchObject({ version: 2, org: "acme", signers: { threshold: 1 } });
    expect(root.signers.keys.map(({ id }) => id)).toEqual([alice.id, bob.id]);
    expect(root.releases[0]?.keys.map(({ id }) => id)).toEqual([newCi.id]);
    expect(root.timestamp?.keys.map(({ id }) => id)).toEqual([bob.id]);
    expect(root.streams.get("orders")).toEqual({ epoch: 2, minVersion: 1 });
    expect(root.streams.get("billing")).toEqual({ epoch: 1, minVersion: 7 });
    expect([...root.revoked]).toEqual([digest]);
    expect(bytes.toString()).not.toContain(ci.id);
    expect(readRoot(next({}))).toEqual({ ...readRoot(first), version: 2 });
  });

  test.for<readonly [string, Partial<RootChanges>, string]>([
    ["leaves nobody to sign releases", { drop: [ci.id] }, "SCHEMA"],
    ["leaves fewer root keys than must sign", { drop: [alice.id, bob.id] }, "ROOT_INVALID"],
    ["drops what is not there", { drop: [newCi.id] }, "USAGE"],
    ["begins an epoch of another stream", { epochs: new Map([["order", 2]]) }, "USAGE"],
  ])("that %s is refused", ([, changes, code]) => {
    expect(() => next(changes)).toThrow(expect.objectContaining({ code }));
  });
});

describe("a root in a file", () => {
  test("collects signatures beside it, each key's once", async () => {
    const folder = await folderWith({ "2.root.json": next({}) });
    const path = join(folder, "2.root.json");
    const known = [alice.public, bob.public];
    const sign = async (...keys: readonly TestKey[]) =>
      signRootFile(await readRootFile(path), { keys, bundles: [] }, known, never);
    expect(await sign(alice, alice)).toBe(1);
    expect(await sign(alice, bob)).toBe(1);
    expect(await sign(bob)).toBe(0);
    const { envelopes, bundlesPath } = await readRootFile(path);
    expect(envelopes.map(({ hint }) => hint)).toEqual([alice.public.hint, bob.public.hint]);
    expect(bundlesPath).toBe(join(folder, "2.root.sigstore.jsonl"));
  });

  test("lets everybody sign whose line somebody else has forged", async () => {
    const document = next({});
    const payload = writeRootStatement(readRoot(document), document);
    const forge = (of: TestKey) => signedLine(payload, carol).replace(carol.public.hint, of.public.hint);
    const folder = await folderWith({
      "2.root.json": document,
      "2.root.sigstore.jsonl": linesOf([forge(alice), forge(bob)]),
    });
    const path = join(folder, "2.root.json");
    const known = [alice.public, bob.public];
    const theirs = { keys: [], bundles: [{ line: signedLine(payload, bob), what: "theirs" }] };
    expect(await signRootFile(await readRootFile(path), { keys: [alice], bundles: [] }, known, never)).toBe(
      1,
    );
    expect(await signRootFile(await readRootFile(path), theirs, known, never)).toBe(1);
    expect(await signRootFile(await readRootFile(path), theirs, known, never)).toBe(0);
    expect(verifyNextRoot(readRoot(first), await readRootFile(path)).version).toBe(2);
  });

  test("takes a signature of another tool when it is good and over these bytes", async () => {
    const document = next({});
    const folder = await folderWith({ "2.root.json": document });
    const path = join(folder, "2.root.json");
    const add = async (line: string) =>
      signRootFile(
        await readRootFile(path),
        { keys: [], bundles: [{ line, what: "theirs" }] },
        [alice.public],
        never,
      );
    const payload = writeRootStatement(readRoot(document), document);
    await expect(add(signedLine(writeRootStatement(readRoot(first), first), alice))).rejects.toMatchObject({
      code: "PAYLOAD_DIFFERS",
    });
    const forged = signedLine(payload, carol).replace(carol.public.hint, alice.public.hint);
    await expect(add(forged)).rejects.toMatchObject({ code: "BUNDLE" });
    expect(await add(signedLine(payload, alice))).toBe(1);
    expect(await add(signedLine(payload, alice))).toBe(0);
  });

  test("that was changed after it was signed is not signed on", async () => {
    const folder = await folderWith({ "2.root.json": next({}) });
    const path = join(folder, "2.root.json");
    await signRootFile(await readRootFile(path), { keys: [alice], bundles: [] }, [], never);
    await appendFile(path, "\n");
    await expect(readRootFile(path)).rejects.toMatchObject({
      code: "PAYLOAD_DIFFERS",
      hint: expect.stringContaining("let everybody sign again") as string,
    });
  });

  test("is never replaced, and is named as what it is", async () => {
    const folder = await folderWith({ "1.root.json": first });
    await expect(createRootFile(join(folder, "1.root.json"), next({}))).rejects.toMatchObject({
      code: "USAGE",
    });
    expect(await readFile(join(folder, "1.root.json"))).toEqual(first);
    await expect(createRootFile(join(folder, "root"), first)).rejects.toMatchObject({ code: "USAGE" });
    expect(pathBeside(join(folder, "1.root.json"), 2)).toBe(join(folder, "2.root.json"));
    expect(pathBeside(join(folder, "root.json"), 2)).toBeUndefined();
  });
});

describe("cosign", () => {
  needs("cosign");

  test("signs a root with any of its key stores, and verifies one", { timeout: 120_000 }, async () => {
    const document = next({ rootThreshold: 1 });
    const folder = await folderWith({ "2.root.json": document, "carol.pem": Buffer.from(carol.privatePem) });
    const env = { PATH: process.env["PATH"], HOME: folder, COSIGN_PASSWORD: "" };
    const cosign = (...words: readonly string[]) => run(part("cosign"), words, { cwd: folder, env });
    await cosign("import-key-pair", "--key", "carol.pem", "--output-key-prefix", "carol", "-y");
    const path = join(folder, "2.root.json");
    const file = await readRootFile(path);
    await writeFile(join(folder, "statement.json"), writeRootStatement(file.root, document));
    const offline = ["--use-signing-config=false", "--tlog-upload=false", "-y"];
    await cosign(
      "attest-blob",
      "--key",
      "carol.key",
      "--statement",
      "statement.json",
      "--bundle",
      "c.json",
      ...offline,
    );
    const [line = ""] = readForeignBundles(await readFile(join(folder, "c.json")), "c.json");
    expect(
      await signRootFile(file, { keys: [], bundles: [{ line, what: "c.json" }] }, [carol.public], never),
    ).toBe(1);
    await signRootFile(await readRootFile(path), { keys: [alice], bundles: [] }, [], never);

    const signed = await readRootFile(path);
    expect(verifyNextRoot(readRoot(first), signed).version).toBe(2);
    for (const [index, key] of [carol, alice].entries()) {
      await writeFile(join(folder, "one.json"), signed.bundles.toString().split("\n")[index] ?? "");
      await writeFile(join(folder, "one.pub"), key.publicPem);
      const { stderr } = await cosign(
        "verify-blob-attestation",
        "--key=one.pub",
        "--insecure-ignore-tlog=true",
        "--type=urn:lockkeeper:root:v1",
        "--bundle=one.json",
        "2.root.json",
      );
      expect(stderr).toContain("Verified OK");
    }
  });
});

describe("publishing a root", () => {
  const wish = { rootKeys: [alice, bob], releaseKeys: [ci] };
  const one = pinned(wish);
  const now = new Date();

  /** A bucket of the test's own, and how to publish into it. */
  async function bucketOf() {
    const folder = await tempFolder();
    onTestFinished(() => folder[Symbol.asyncDispose]());
    const { source, requests } = recorded(folder.source);
    const publish = (file: ReturnType<typeof signedRoot>): Promise<PublishedRoot> =>
      publishRoot({ destination: source, pinned: one, file, now }, never);
    return { source, requests, publish };
  }

  test("writes its signatures first and the document last, once", async () => {
    const { publish, requests, source } = await bucketOf();
    const two = signedRoot(rootText({ ...wish, version: 2 }), [alice, bob]);
    expect(await publish(two)).toMatchObject({ outcome: "published", root: { version: 2 } });
    expect(requests.filter((request) => request.startsWith("PUT"))).toEqual([
      `PUT ${layout.rootBundles(2)}`,
      `PUT ${layout.root(2)}`,
    ]);
    expect(await publish(two)).toMatchObject({ outcome: "unchanged" });
    // another one of the same version, as well signed
    const other = signedRoot(rootText({ ...wish, version: 2, epoch: 2 }), [alice, bob]);
    await expect(publish(other)).rejects.toMatchObject({ code: "ROOT_VERSION" });
    expect((await source.read(layout.root(2), { maxBytes: 65_536 }, never))?.bytes).toEqual(two.document);
    expect(await publish(signedRoot(rootText({ ...wish, version: 3 }), [alice, bob]))).toMatchObject({
      outcome: "published",
    });
  });

  test.for<readonly [string, Parameters<typeof rootText>[0], readonly TestKey[], string]>([
    ["with too few signatures", { ...wish, version: 2 }, [alice], "ROOT_THRESHOLD"],
    ["that skips a version", { ...wish, version: 3 }, [alice, bob], "ROOT_VERSION"],
    ["that is not newer than the pinned one", { ...wish, version: 1 }, [alice, bob], "ROOT_VERSION"],
    [
      "that has expired",
      { ...wish, version: 2, expires: "2020-01-01T00:00:00Z" },
      [alice, bob],
      "ROOT_EXPIRED",
    ],
    ["of another organisation", { ...wish, version: 2, org: "emca" }, [alice, bob], "ROOT_INVALID"],
  ])("%s is refused, and nothing is written", async ([, text, keys, code]) => {
    const { publish, requests } = await bucketOf();
    await expect(publish(signedRoot(rootText(text), keys))).rejects.toMatchObject({ code });
    expect(requests.filter((request) => request.startsWith("PUT"))).toEqual([]);
  });

  test("goes on after one that was cut off, and not over somebody else's", async () => {
    const { publish, source } = await bucketOf();
    const text = rootText({ ...wish, version: 2 });
    await overwrite(source, layout.rootBundles(2), signedRoot(text, [alice]).bundles);
    expect(await publish(signedRoot(text, [alice, bob]))).toMatchObject({ outcome: "published" });
    const theirs = signedRoot(rootText({ ...wish, version: 3, epoch: 9 }), [alice, bob]);
    const ours = signedRoot(rootText({ ...wish, version: 3 }), [alice, bob]);
    for (const left of [theirs.bundles, Buffer.from("rubbish"), linesOf([])]) {
      await overwrite(source, layout.rootBundles(3), left);
      await expect(publish(ours)).rejects.toMatchObject({ code: "SOURCE_CONFLICT" });
    }
  });

  test("by two at once publishes one of them, and every reader sees a whole one", async () => {
    const { publish, source } = await bucketOf();
    const files = [2, 3].map((epoch) => signedRoot(rootText({ ...wish, version: 2, epoch }), [alice, bob]));
    const ends = await Promise.allSettled(files.map(publish));
    expect(ends.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
    expect(ends.find(({ status }) => status === "rejected")).toMatchObject({
      reason: { code: expect.stringMatching(/^(SOURCE_CONFLICT|ROOT_VERSION)$/) as string },
    });
    const won = files.find((_, index) => ends[index]?.status === "fulfilled");
    expect(await publish(won ?? expect.fail("one was published"))).toMatchObject({ outcome: "unchanged" });
    expect((await source.read(layout.root(2), { maxBytes: 65_536 }, never))?.bytes).toEqual(won?.document);
  });

  test("reads what stands in the way of its own proof", async () => {
    const { publish, source } = await bucketOf();
    const three = signedRoot(rootText({ ...wish, version: 3 }), [alice, bob]);
    await plantRoot(source, 2, signedRoot(rootText({ ...wish, version: 2 }), [carol]));
    await expect(publish(three)).rejects.toMatchObject({ code: "ROOT_THRESHOLD" });
  });
});
