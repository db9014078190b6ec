import { describe, expect, test } from "vitest";

import { noKnownRoots } from "../../src/release/trust/anchor.ts";
import type { KnownRoots, RootFile } from "../../src/release/trust/anchor.ts";
import { layout } from "../../src/release/layout.ts";
import type { Root } from "../../src/release/root/root.ts";
import { writeRootStatement } from "../../src/release/root/root-statement.ts";
import { assertCurrent, verifyNextRoot, walkRoots } from "../../src/release/root/root-walk.ts";
import type { RootBytes, RootWalk } from "../../src/release/root/root-walk.ts";
import { writeStatement } from "../../src/release/statement.ts";
import { makeKey, never, overwrite, recorded, signedLine, tempFolder } from "../support/release.ts";
import type { TestKey } from "../support/release.ts";
import { linesOf, pinned, plantRoot, rootText, signedRoot } from "../support/root.ts";
import type { RootWish } from "../support/root.ts";

// The root scenarios of the TUF conformance suite are here under its names, with the codes that they have in lockkeeper.

const [alice, bob, carol, dave, mallory] = [makeKey(), makeKey("ed25519"), makeKey(), makeKey(), makeKey()];
const release = makeKey();

/** A root of these root keys, all of which must sign its successor. */
const wish = (version: number, rootKeys: readonly TestKey[], more: Partial<RootWish> = {}): RootWish => ({
  version,
  rootKeys,
  releaseKeys: [release],
  ...more,
});

const one = pinned(wish(1, [alice]));
const refused = (code: string): object => expect.objectContaining({ code });

/** What a database remembers. */
function remembers(version: number | null, files: readonly RootFile[] = []): KnownRoots {
  return { version, files: () => Promise.resolve(files) };
}

function fileOf(version: number, { document, bundles }: RootBytes): RootFile {
  return { version, document: document.toString(), bundles: bundles.toString() };
}

/** Walks from `root` over a bucket with these roots, by version. */
async function walk(
  files: Readonly<Record<number, RootBytes>>,
  { root = one, known = noKnownRoots }: { readonly root?: Root; readonly known?: KnownRoots } = {},
): Promise<RootWalk> {
  await using bucket = await tempFolder();
  for (const [version, bytes] of Object.entries(files))
    await plantRoot(bucket.source, Number(version), bytes);
  return await walkRoots(root, { source: bucket.source, known }, never);
}

describe("the next root", () => {
  const next = rootText(wish(2, [bob]));

  // TUF: test_root_rotation
  test("test_root_rotation: is taken with the signatures of the old keys and of its own", async () => {
    expect(verifyNextRoot(one, signedRoot(next, [alice, bob])).version).toBe(2);
    const three = signedRoot(rootText(wish(3, [carol, dave], { rootThreshold: 1 })), [bob, carol]);
    const four = signedRoot(rootText(wish(4, [alice])), [dave, alice]);
    const found = await walk({ 2: signedRoot(next, [alice, bob]), 3: three, 4: four });
    expect(found.roots.map(({ version }) => version)).toEqual([1, 2, 3, 4]);
    expect(found.newest.signers.keys.map(({ id }) => id)).toEqual([alice.id]);
    expect(found.files.map(({ version }) => version)).toEqual([2, 3, 4]);
  });

  test("attack 30: signed only by the new keys, only by the old, or by a stranger is ROOT_THRESHOLD", async () => {
    for (const keys of [[bob], [alice], [mallory], [mallory, bob], [mallory, alice]]) {
      await expect(walk({ 2: signedRoot(next, keys) })).rejects.toEqual(refused("ROOT_THRESHOLD"));
    }
  });

  // TUF: test_snapshot_does_not_meet_threshold, for the one document there is here
  test("test_snapshot_does_not_meet_threshold: one signature too few is ROOT_THRESHOLD", () => {
    const two = pinned(wish(1, [alice, bob, carol], { rootThreshold: 2 }));
    const same = rootText(wish(2, [alice, bob, carol], { rootThreshold: 2 }));
    expect(() => verifyNextRoot(two, signedRoot(same, [alice]))).toThrow(refused("ROOT_THRESHOLD"));
    expect(verifyNextRoot(two, signedRoot(same, [carol, alice])).version).toBe(2);
    const stricter = rootText(wish(2, [alice, bob, carol], { rootThreshold: 3 }));
    expect(() => verifyNextRoot(two, signedRoot(stricter, [carol, alice]))).toThrow(
      refused("ROOT_THRESHOLD"),
    );
  });

  // TUF: test_duplicate_sig_keyids, and attack 20 for roots
  test("test_duplicate_sig_keyids: two signatures of one key count once", () => {
    const two = pinned(wish(1, [alice, bob]));
    const same = rootText(wish(2, [alice, bob]));
    const { bundles } = signedRoot(same, [alice, alice]);
    const document = Buffer.from(JSON.stringify(same));
    expect(() => verifyNextRoot(two, { document, bundles })).toThrow(
      expect.objectContaining({ code: "ROOT_THRESHOLD", fields: { counted: 1, threshold: 2, lines: 2 } }),
    );
    // under another key's name, too
    const claimed = signedLine(writeRootStatement(same, document), alice).replace(
      alice.public.hint,
      bob.public.hint,
    );
    const lines = linesOf([signedLine(writeRootStatement(same, document), alice), claimed]);
    expect(() => verifyNextRoot(two, { document, bundles: lines })).toThrow(refused("ROOT_THRESHOLD"));
  });

  // TUF: test_invalid_sig_in_valid_metadata
  test("test_invalid_sig_in_valid_metadata: a bad signature beside enough good ones is passed over", () => {
    const { document, bundles } = signedRoot(next, [alice, bob, mallory]);
    const broken = bundles.toString().split("\n");
    broken[2] = (broken[2] ?? "").replace(
      /"sig":"[^"]+"/,
      `"sig":"${Buffer.alloc(71, 7).toString("base64")}"`,
    );
    expect(verifyNextRoot(one, { document, bundles: Buffer.from(broken.join("\n")) }).version).toBe(2);
    const onlyBad = linesOf([broken[2]]);
    expect(() => verifyNextRoot(one, { document, bundles: onlyBad })).toThrow(refused("ROOT_THRESHOLD"));
  });

  // TUF: test_metadata_bytes_match
  test("test_metadata_bytes_match: with other bytes than were signed is ROOT_INVALID, though they say the same", async () => {
    const { bundles } = signedRoot(next, [alice, bob]);
    const document = Buffer.from(JSON.stringify(next, null, 2));
    await expect(walk({ 2: { document, bundles } })).rejects.toEqual(refused("ROOT_INVALID"));
  });

  // TUF: test_url_and_metadata_version_mismatch
  test("test_url_and_metadata_version_mismatch: a skipped version or a replayed one is ROOT_VERSION", async () => {
    const skipped = signedRoot(rootText(wish(3, [bob])), [alice, bob]);
    await expect(walk({ 2: skipped })).rejects.toEqual(refused("ROOT_VERSION"));
    const two = signedRoot(rootText(wish(2, [alice])), [alice]);
    await expect(walk({ 2: two, 3: two })).rejects.toEqual(refused("ROOT_VERSION"));
    const lied = signedRoot(next, [alice, bob], { version: 3 });
    await expect(walk({ 2: lied })).rejects.toEqual(refused("ROOT_VERSION"));
  });

  test("of another organisation is ROOT_INVALID", async () => {
    const other = signedRoot(rootText(wish(2, [alice], { org: "emca" })), [alice]);
    await expect(walk({ 2: other })).rejects.toEqual(refused("ROOT_INVALID"));
    const lied = signedRoot(rootText(wish(2, [alice])), [alice], { org: "emca" });
    await expect(walk({ 2: lied })).rejects.toEqual(refused("ROOT_INVALID"));
  });

  // TUF: test_incorrect_metadata_type
  test("test_incorrect_metadata_type: attack 23: a release's statement in its place is PREDICATE_TYPE", async () => {
    const statement = writeStatement({
      stream: "orders",
      epoch: 1,
      version: 2,
      previous: null,
      manifestSha256: "0".repeat(64),
      manifestSize: 1,
      chain: { length: 0, head: "0".repeat(64) },
      environments: ["default"],
      issued: new Date(),
      expires: new Date(),
    });
    const bundles = linesOf([signedLine(statement, alice), signedLine(statement, bob)]);
    const document = Buffer.from(JSON.stringify(next));
    await expect(walk({ 2: { document, bundles } })).rejects.toEqual(refused("PREDICATE_TYPE"));
  });

  test("with two lines that sign different things is PAYLOAD_DIFFERS", async () => {
    const { document, bundles } = signedRoot(next, [alice, bob]);
    const other = signedRoot(rootText(wish(2, [carol])), [alice]).bundles;
    const mixed = { document, bundles: Buffer.concat([bundles, other]) };
    await expect(walk({ 2: mixed })).rejects.toEqual(refused("PAYLOAD_DIFFERS"));
  });

  test("flipped in any bit of its document, or cut anywhere, is refused", () => {
    const { document, bundles } = signedRoot(next, [alice, bob]);
    for (let at = 0; at < document.length * 8; at += 5) {
      const flipped = Buffer.from(document);
      flipped[at >> 3] = (flipped[at >> 3] ?? 0) ^ (1 << (at & 7));
      expect(() => verifyNextRoot(one, { document: flipped, bundles })).toThrow(refused("ROOT_INVALID"));
    }
    for (let end = 0; end < document.length; end += 7) {
      const cut = document.subarray(0, end);
      expect(() => verifyNextRoot(one, { document: cut, bundles })).toThrow(refused("ROOT_INVALID"));
    }
  });
});

describe("the walk", () => {
  test("costs one request where nothing is new", async () => {
    await using bucket = await tempFolder();
    const { source, requests } = recorded(bucket.source);
    const found = await walkRoots(one, { source, known: remembers(1) }, never);
    expect(found).toMatchObject({ newest: one, files: [] });
    expect(requests).toEqual([`GET ${layout.root(2)}`]);
  });

  test("ends at a root that is absent, and fails at one that cannot be proven", async () => {
    const good = signedRoot(rootText(wish(2, [alice])), [alice]);
    const bad = signedRoot(rootText(wish(3, [alice])), [mallory]);
    expect((await walk({ 2: good })).newest.version).toBe(2);
    await expect(walk({ 2: good, 3: bad })).rejects.toEqual(refused("ROOT_THRESHOLD"));
    // 3 is out of reach without 2
    expect((await walk({ 3: bad })).newest.version).toBe(1);
  });

  test("fails at a root without its signatures, or with what is none", async () => {
    const { document } = signedRoot(rootText(wish(2, [alice])), [alice]);
    await using bucket = await tempFolder();
    await overwrite(bucket.source, layout.root(2), document);
    const going = () => walkRoots(one, { source: bucket.source, known: noKnownRoots }, never);
    await expect(going()).rejects.toEqual(refused("ROOT_THRESHOLD"));
    await overwrite(bucket.source, layout.rootBundles(2), Buffer.from("rubbish\n"));
    await expect(going()).rejects.toEqual(refused("JSON_SYNTAX"));
  });

  test("takes 32 steps and refuses the 33rd", async () => {
    await using bucket = await tempFolder();
    for (let version = 2; version <= 33; version++) {
      await plantRoot(bucket.source, version, signedRoot(rootText(wish(version, [alice])), [alice]));
    }
    const going = () => walkRoots(one, { source: bucket.source, known: noKnownRoots }, never);
    expect((await going()).newest.version).toBe(33);
    await plantRoot(bucket.source, 34, signedRoot(rootText(wish(34, [alice])), [alice]));
    await expect(going()).rejects.toMatchObject({
      code: "ROOT_VERSION",
      hint: "pin a newer root in the deployment",
    });
  });

  test("reads no more than a root may have", async () => {
    await using bucket = await tempFolder();
    await overwrite(bucket.source, layout.root(2), Buffer.alloc(70_000, " "));
    await expect(walkRoots(one, { source: bucket.source, known: noKnownRoots }, never)).rejects.toEqual(
      refused("TOO_LARGE"),
    );
  });

  test("goes by what the database remembers where the bucket withholds a root", async () => {
    const two = signedRoot(rootText(wish(2, [bob])), [alice, bob]);
    const three = signedRoot(rootText(wish(3, [carol])), [bob, carol]);
    const known = remembers(2, [fileOf(2, two)]);
    expect((await walk({}, { known })).newest.version).toBe(2);
    expect((await walk({ 3: three }, { known })).newest.version).toBe(3);
    // a replaced one is not even looked at
    expect(
      (await walk({ 2: signedRoot(rootText(wish(2, [alice])), [alice]) }, { known })).newest,
    ).toMatchObject({
      signers: { keys: [{ id: bob.id }] },
    });
  });

  test("proves again what the database remembers, from the pinned root on", async () => {
    const forged = remembers(2, [fileOf(2, signedRoot(rootText(wish(2, [mallory])), [mallory]))]);
    await expect(walk({}, { known: forged })).rejects.toEqual(refused("ROOT_THRESHOLD"));
  });

  test("asks the database for nothing that is older than what is pinned", async () => {
    const unasked = { version: 2, files: () => Promise.reject(new Error("was asked")) };
    const later = pinned(wish(2, [bob]));
    expect((await walk({}, { root: later, known: unasked })).newest.version).toBe(2);
  });

  test("fills what the database does not remember from the bucket", async () => {
    const two = signedRoot(rootText(wish(2, [bob])), [alice, bob]);
    const three = signedRoot(rootText(wish(3, [carol])), [bob, carol]);
    // a runner with a newer pinned root wrote only the one after it
    const known = remembers(3, [fileOf(3, three)]);
    expect((await walk({ 2: two }, { known })).newest.version).toBe(3);
  });
});

describe("the newest root", () => {
  const now = new Date("2026-06-01T00:00:00Z");
  const at = (expires: string, version = 2): Root => pinned(wish(version, [alice], { expires }));
  const facts = { now, known: null, minRootVersion: 1 };

  // TUF: test_root_expired and test_expired_local_root
  test("test_root_expired: is refused when its time is over", () => {
    expect(() => assertCurrent(at("2026-06-01T00:00:00Z"), facts)).toThrow(refused("ROOT_EXPIRED"));
    expect(() => assertCurrent(at("2026-06-01T00:00:01Z"), facts)).not.toThrow();
  });

  test("test_expired_local_root: may follow roots that have expired", async () => {
    const past = "2020-01-01T00:00:00Z";
    const two = signedRoot(rootText(wish(2, [bob], { expires: past })), [alice, bob]);
    const three = signedRoot(rootText(wish(3, [carol])), [bob, carol]);
    const found = await walk({ 2: two, 3: three }, { root: pinned(wish(1, [alice], { expires: past })) });
    expect(() => assertCurrent(found.newest, facts)).not.toThrow();
  });

  test("below what the database knows, or what is demanded, is ROOT_ROLLBACK", () => {
    const root = at("2100-01-01T00:00:00Z");
    expect(() => assertCurrent(root, { ...facts, known: 3 })).toThrow(refused("ROOT_ROLLBACK"));
    expect(() => assertCurrent(root, { ...facts, minRootVersion: 3 })).toThrow(refused("ROOT_ROLLBACK"));
    expect(() => assertCurrent(root, { now, known: 2, minRootVersion: 2 })).not.toThrow();
  });
});
