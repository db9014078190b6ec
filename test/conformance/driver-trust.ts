import { expect, test } from "vitest";
import type { Driver } from "../../src/driver/driver.ts";
import type { RunBeginning } from "../../src/driver/session.ts";
import { type AuditEntry, firstLink, linkOf } from "../../src/history/audit.ts";
import type { RootFile } from "../../src/release/trust/anchor.ts";
import { leaseOptions, never } from "../support/steps.ts";
import { silentTimes, type Start } from "./driver-start.ts";

const highWaterMark = { epoch: 2, version: 7, digest: "sha256:d" };
const root2: RootFile = {
  version: 2,
  document: '{"version":2,"org":"it\'s \\u00e9 é→😀"}\n',
  bundles: "{}\n{}\n",
};
const root3: RootFile = { version: 3, document: '{"version":3}', bundles: "{}" };

/** What a database remembers of trust, of decisions, and of a pause. */
export function trustSuite(start: Start): void {
  test("43. the audit log begins empty, and each entry is linked to the one before it", async () => {
    const { driver, open } = await start();
    const other = await open();
    expect(await driver.audit.read({ after: 0, limit: 10 }, never)).toEqual([]);
    expect((await driver.state("orders", never)).exists).toBe(false);
    const texts = ['{"n":1}', '{"name":"o\'brien \\\\ \\n \\u0000 $1 é 😀"}', "{}"];
    const added = [
      await driver.audit.append(texts[0] ?? "", never),
      await other.audit.append(texts[1] ?? "", never),
      await driver.audit.append(texts[2] ?? "", never),
    ];
    expect(added.map(({ seq, text }) => [seq, text])).toEqual(texts.map((text, index) => [index + 1, text]));
    expect(await other.audit.read({ after: 0, limit: 10 }, never)).toEqual(added);
    expectChain(added);
    expect(await driver.audit.read({ after: 1, limit: 1 }, never)).toEqual([added[1]]);
    expect(await driver.audit.read({ after: 3, limit: 10 }, never)).toEqual([]);
    expect(await driver.audit.read({ after: 0, limit: 2, newest: true }, never)).toEqual(added.slice(1));
    expect(await driver.audit.read({ after: 2, limit: 2, newest: true }, never)).toEqual(added.slice(2));
  });

  test("44. 32 writers at once, on a fresh database: no number is missing or given twice, and every entry is linked to the one before it", async () => {
    const { open } = await start();
    const drivers = await Promise.all(Array.from({ length: 4 }, () => open()));
    const texts = Array.from({ length: 32 }, (_, n) => `{"writer":${n}}`);
    const added = await Promise.all(
      texts.map((text, n) => at(drivers, n % drivers.length).audit.append(text, never)),
    );
    const read = await at(drivers, 0).audit.read({ after: 0, limit: 100 }, never);
    expect(read.map(({ seq }) => seq)).toEqual(texts.map((_, index) => index + 1));
    expect(read.map(({ text }) => text).toSorted()).toEqual(texts.toSorted());
    expect(added.toSorted((a, b) => a.seq - b.seq)).toEqual(read);
    expectChain(read);
  });

  test("45. roots and their version are remembered with what is begun under them, and the version is never lowered", async () => {
    const { driver } = await start();
    expect(await driver.roots("orders", never)).toEqual([]);
    expect((await driver.state("orders", never)).rootVersion).toBeNull();
    await driver.withLease(leaseOptions(), async (session) => {
      await session.begin(beginning({ root: { version: 3, files: [root2, root3] } }));
      expect(await session.state()).toMatchObject({ rootVersion: 3, highWaterMark });
    });
    expect(await driver.roots("orders", never)).toEqual([root2, root3]);
    expect(await driver.roots("billing", never)).toEqual([]);
    const grown = { ...root2, bundles: "{}\n{}\n{}\n" };
    await driver.withLease(leaseOptions(), (session) =>
      session.begin(beginning({ root: { version: 2, files: [grown] } })),
    );
    await driver.withLease(leaseOptions(), (session) => session.begin(beginning({})));
    expect((await driver.state("orders", never)).rootVersion).toBe(3);
    expect(await driver.roots("orders", never)).toEqual([grown, root3]);
  });

  test("46. a root whose holder has lost the lease is not remembered", async () => {
    const { driver, open, expire } = await start({ times: silentTimes });
    const other = await open();
    await driver
      .withLease(leaseOptions(), async (stale) => {
        await expire();
        await other.withLease(leaseOptions({ waitMs: 50_000 }), () => Promise.resolve());
        const root = { version: 2, files: [root2] };
        await expect(stale.begin(beginning({ root }))).rejects.toMatchObject({ code: "LEASE_LOST" });
      })
      .catch((error: unknown) => expect(error).toBeUndefined());
    expect(await driver.roots("orders", never)).toEqual([]);
    expect(await driver.state("orders", never)).toMatchObject({ rootVersion: null, highWaterMark: null });
  });

  test("47. a stream is paused before anything was run on it, also while it is worked on, and goes on where it was", async () => {
    const { driver, open } = await start();
    const other = await open();
    const paused = async (stream = "orders") => (await driver.state(stream, never)).paused;
    expect(await driver.setPaused("orders", false, never)).toBe(false);
    expect((await driver.state("orders", never)).exists).toBe(false);
    expect(await driver.setPaused("orders", true, never)).toBe(true);
    expect(await driver.setPaused("orders", true, never)).toBe(false);
    expect([await paused(), await paused("billing")]).toEqual([true, false]);
    expect(await driver.state("orders", never)).toMatchObject({
      position: { length: 0, chain: null, version: null },
      lease: null,
      environment: null,
    });
    expect(await driver.setPaused("orders", false, never)).toBe(true);
    await driver.withLease(leaseOptions(), async (session) => {
      await session.begin(beginning({}));
      expect(await other.setPaused("orders", true, never)).toBe(true);
      expect(await session.state()).toMatchObject({ paused: true, targetId: "t", highWaterMark });
    });
    expect(await paused()).toBe(true);
    expect(await other.setPaused("orders", false, never)).toBe(true);
    expect(await driver.state("orders", never)).toMatchObject({ paused: false, highWaterMark });
  });

  test("48. trust is forgotten with or without the releases, and the history and its chain stay", async () => {
    const { driver, apply } = await start();
    expect(await driver.resetTrust("orders", { releases: true }, never)).toEqual({
      rootVersion: null,
      highWaterMark: null,
    });
    expect((await driver.state("orders", never)).exists).toBe(false);
    await driver.withLease(leaseOptions(), async (session) => {
      await session.begin(beginning({ root: { version: 3, files: [root2, root3] } }));
      await apply(session, [1]);
      await session.finish({ status: "succeeded", outcome: "applied", completed: "sha256:d" });
    });
    await driver.withLease(leaseOptions({ stream: "billing" }), (session) =>
      session.begin(beginning({ root: { version: 2, files: [root2] } })),
    );
    const { position } = await driver.state("orders", never);
    expect(await driver.resetTrust("orders", { releases: false }, never)).toEqual({
      rootVersion: 3,
      highWaterMark: null,
    });
    expect(await driver.roots("orders", never)).toEqual([]);
    expect(await driver.state("orders", never)).toMatchObject({
      rootVersion: null,
      highWaterMark,
      environment: "default",
      position,
    });
    expect(await driver.resetTrust("orders", { releases: true }, never)).toEqual({
      rootVersion: null,
      highWaterMark,
    });
    expect(await driver.state("orders", never)).toMatchObject({ highWaterMark: null, position });
    expect(await driver.history("orders", {}, never)).toHaveLength(1);
    expect(await driver.roots("billing", never)).toEqual([root2]);
    expect(await driver.state("billing", never)).toMatchObject({ rootVersion: 2, highWaterMark });
    await driver.withLease(leaseOptions(), (session) =>
      session.begin(beginning({ root: { version: 1, files: [] } })),
    );
    expect((await driver.state("orders", never)).rootVersion).toBe(1);
  });

  test("49. trust is not reset under a run; and where its holder has died, it can never say again what was forgotten", async () => {
    const { driver, open, expire } = await start({ times: silentTimes });
    const other = await open();
    const options = leaseOptions({ holder: "first/1" });
    const root = { version: 2, files: [root2] };
    await driver
      .withLease(options, async (stale) => {
        await stale.begin(beginning({ root }));
        await expect(other.resetTrust("orders", { releases: true }, never)).rejects.toMatchObject({
          code: "LEASE_HELD",
          fields: { run: options.run.id, holder: "first/1" },
        });
        expect(await remembered(other)).toEqual({ rootVersion: 2, highWaterMark, roots: [root2] });
        await expire();
        expect(await other.resetTrust("orders", { releases: true }, never)).toEqual({
          rootVersion: 2,
          highWaterMark,
        });
        await expect(stale.begin(beginning({ root }))).rejects.toMatchObject({ code: "LEASE_LOST" });
        expect(await remembered(other)).toEqual({ rootVersion: null, highWaterMark: null, roots: [] });
      })
      .catch((error: unknown) => expect(error).toBeUndefined());
  });
}

async function remembered(driver: Driver): Promise<unknown> {
  const { rootVersion, highWaterMark } = await driver.state("orders", never);
  return { rootVersion, highWaterMark, roots: await driver.roots("orders", never) };
}

function beginning(change: Partial<RunBeginning>): RunBeginning {
  const release = { highWaterMark, releaseDigest: "sha256:d" };
  return { ...release, fromVersion: null, toVersion: null, steps: 1, ...change };
}

function expectChain(entries: readonly AuditEntry[]): void {
  let previous = firstLink;
  for (const entry of entries) {
    expect(entry).toMatchObject({ previous, sha256: linkOf(previous, entry.text) });
    previous = entry.sha256;
  }
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) throw new RangeError(`no item ${index}`);
  return item;
}
