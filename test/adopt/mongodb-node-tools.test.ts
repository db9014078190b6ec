import { describe, expect, onTestFinished, test } from "vitest";
import { needs } from "../support/parts.ts";
import { migrateMongo, umzug, type PeerResult, type PeerSite } from "../support/peer.ts";
import { tempFolder } from "../support/release.ts";
import { makeMongoSite, pair } from "./mongo-site.ts";
import { back } from "./site.ts";

needs("mongodb");

describe.each([
  {
    tool: "migrate-mongo",
    collection: "changelog",
    script: (n: number) =>
      `module.exports = { up: (db) => db.createCollection("t${n}"), down: (db) => db.collection("t${n}").drop() };`,
    extension: "js",
    up: (site: PeerSite) => migrateMongo(site, {}, "up"),
    down: (site: PeerSite) => migrateMongo(site, {}, "down"),
  },
  {
    tool: "umzug",
    collection: "migrations",
    script: (n: number) =>
      `exports.up = ({ context }) => context.createCollection("t${n}"); exports.down = ({ context }) => context.collection("t${n}").drop();`,
    extension: "cjs",
    up: (site: PeerSite) => umzug(site, "up"),
    down: (site: PeerSite) => umzug(site, "down"),
  },
] as const)("$tool's collection", ({ tool, collection, script, extension, up, down }) => {
  needs(tool);

  test("is taken over, kept in step, and taken up by the real tool again", async () => {
    const { site, db } = await makeMongoSite({ ...pair(1), ...pair(2) });
    const theirs = await tempFolder();
    onTestFinished(() => theirs[Symbol.asyncDispose]());
    const place = { url: site.url, folder: theirs.path };
    const add = (n: number) => site.write({ [`000${n}_t${n}.${extension}`]: script(n) }, place.folder);
    const does = async (result: Promise<PeerResult>) => {
      const { code, stdout, stderr } = await result;
      expect(code === 0 ? "" : stdout + stderr).toBe("");
    };
    await Promise.all([add(1), add(2)]);
    await does(up(place));
    const { finding } = await site.adopt({ keepsInStep: true });
    expect(finding).toMatchObject({
      place: { tool, table: collection },
      applied: [{ assumed: null }, { assumed: null }],
    });

    await Promise.all([site.write(pair(3)), add(3)]);
    expect(await site.run()).toMatchObject({ outcome: "applied", error: null });
    // It would fail: the collection is there.
    await does(up(place));
    expect(await db.collection(collection).countDocuments()).toBe(3);
    await does(down(place));
    expect((await site.adopt()).changes).toMatchObject([{ direction: "down" }]);
    expect(await site.run()).toMatchObject({ outcome: "applied", error: null });
    expect(await site.run(back(1))).toMatchObject({ outcome: "rolled_back", error: null });
    expect(await db.collection(collection).countDocuments()).toBe(2);
  });
});
