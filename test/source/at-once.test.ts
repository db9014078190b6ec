import { execFileSync } from "node:child_process";
import { appendFile, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { AtOnce, readAtOnce } from "../../src/source/at-once.ts";
import { openSource } from "../../src/source/open.ts";

const { signal } = new AbortController();
const maxBytes = 1_000_000;

test("reads a small regular file at once, and leaves everything else to a careful look", async () => {
  const folder = await makeFolder();
  const file = join(folder, "a.sql");
  await writeFile(file, "SELECT 1");
  const read = (name: string) => readAtOnce(join(folder, name), maxBytes, {});
  const found = read("a.sql");
  if (found === undefined || found === "unchanged") throw new Error("it was not read");
  expect(String(found.bytes)).toBe("SELECT 1");
  expect(readAtOnce(file, maxBytes, { known: found.version })).toBe("unchanged");
  expect(readAtOnce(file, maxBytes, { pinned: found.version })).toEqual(found);
  expect(readAtOnce(file, 7, {})).toBeUndefined();
  await writeFile(join(folder, "large.sql"), Buffer.alloc(70_000, "x"));
  await symlink("a.sql", join(folder, "link.sql"));
  await mkdir(join(folder, "folder.sql"));
  execFileSync("mkfifo", [join(folder, "pipe.sql")]);
  for (const name of ["large.sql", "link.sql", "folder.sql", "pipe.sql", "none.sql"])
    expect(read(name)).toBeUndefined();
  await appendFile(file, ";");
  expect(readAtOnce(file, maxBytes, { pinned: found.version })).toBeUndefined();
});

test("waits no longer for a file system that takes its time", () => {
  const atOnce = new AtOnce();
  const take = (ms: number) =>
    atOnce.call(() => {
      const began = performance.now();
      while (performance.now() - began < ms);
    });
  take(1);
  expect(() =>
    atOnce.call(() => {
      throw new Error("no such file");
    }),
  ).toThrow("no such file");
  for (let calls = 0; calls < 30; calls += 1) take(2);
  expect(atOnce.isQuick()).toBe(false);
});

test("lets the rest of the process have its turn while it reads thousands of files", async () => {
  const folder = await makeFolder();
  const names = Array.from({ length: 3_000 }, (_, index) => `${index}.sql`);
  for (const name of names) await writeFile(join(folder, name), name);
  const source = await openSource(folder);
  const listed = await source.list("", signal);
  let turns = 0;
  const timer = setInterval(() => (turns += 1), 1);
  onTestFinished(() => clearInterval(timer));
  for (const { key, version } of listed) {
    const object = await source.read(key, { maxBytes, version }, signal);
    expect(String(object?.bytes)).toBe(key);
  }
  expect(listed.length).toBe(names.length);
  expect(turns).toBeGreaterThan(0);
});

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-at-once-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}
