import { mkdtemp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { call } from "./terminal.ts";

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "lockkeeper-create-"));
  onTestFinished(() => rm(path, { recursive: true, force: true }));
  return path;
}

describe("create", () => {
  test("makes an up and a down file, six digits, in a folder that it makes", async () => {
    const dir = join(await folder(), "db", "migrations");
    const { code, stdout } = await call(["create", "add_users", "--dir", dir]);
    expect(code).toBe(0);
    expect(stdout).toBe(`${dir}/000001_add_users.up.sql\n${dir}/000001_add_users.down.sql\n`);
    expect((await readdir(dir)).toSorted()).toEqual(["000001_add_users.down.sql", "000001_add_users.up.sql"]);
  });

  test("numbers on, also between files of other kinds and with spaces in the name", async () => {
    const dir = await folder();
    await writeFile(join(dir, "000041_old.up.sql"), "select 1");
    await writeFile(join(dir, "README.md"), "hello");
    const { stdout } = await call(["create", " add  users ", "--dir", dir, "--output", "json"]);
    expect(JSON.parse(stdout)).toEqual({
      version: "000042",
      files: [join(dir, "000042_add_users.up.sql"), join(dir, "000042_add_users.down.sql")],
    });
  });

  test("makes json files that hold no command yet", async () => {
    const dir = await folder();
    await call(["create", "add_users", "--dir", dir, "--ext", "json"]);
    expect(JSON.parse(await readFile(join(dir, "000001_add_users.up.json"), "utf8"))).toEqual([]);
  });

  test("leaves an SQL file empty, so that one which nobody has written is refused", async () => {
    const dir = await folder();
    await call(["create", "add_users", "--dir", dir]);
    expect(await readFile(join(dir, "000001_add_users.up.sql"), "utf8")).toBe("");
  });

  test("gives the UTC time with --timestamp, and a later one within the same second", async () => {
    const dir = await folder();
    const before = Number(new Date().toISOString().replace(/\D/g, "").slice(0, 14));
    const first = JSON.parse(
      (await call(["create", "a", "--dir", dir, "--timestamp", "--output", "json"])).stdout,
    );
    const second = JSON.parse(
      (await call(["create", "b", "--dir", dir, "--timestamp", "--output", "json"])).stdout,
    );
    expect(first.version).toMatch(/^\d{14}$/);
    expect(Number(first.version)).toBeGreaterThanOrEqual(before);
    expect(Number(second.version)).toBeGreaterThan(Number(first.version));
  });

  test("writes both files or none: calls at once never share a file", async () => {
    const dir = await folder();
    const calls = await Promise.all(Array.from({ length: 8 }, () => call(["create", "same", "--dir", dir])));
    const names = await readdir(dir);
    const made = calls.filter(({ code }) => code === 0).length;
    expect(made).toBeGreaterThan(0);
    expect(calls.every(({ code }) => code === 0 || code === 2)).toBe(true);
    expect(names).toHaveLength(2 * made);
    expect(names.filter((name) => name.endsWith(".up.sql"))).toHaveLength(made);
  });

  test("refuses a folder with a file that is no migration", async () => {
    const dir = await folder();
    await writeFile(join(dir, "seed.sql"), "select 1");
    const { code, stderr } = await call(["create", "a", "--dir", dir]);
    expect(code).toBe(20);
    expect(stderr).toContain('"seed.sql" does not begin with a version and an underscore');
  });

  test("refuses a folder that is another tool's, and writes nothing into it", async () => {
    for (const [format, name, text] of [
      ["goose", "00001_a.sql", "-- +goose Up\n"],
      ["dbmate", "20200101000000_a.sql", "-- migrate:up\n-- migrate:down\n"],
      ["flyway", "V1__a.sql", "select 1"],
      ["atlas", "atlas.sum", "h1:"],
    ] as const) {
      const dir = await folder();
      await writeFile(join(dir, name), text);
      const { code, stderr } = await call(["create", "b", "--dir", dir]);
      expect(code).toBe(2);
      expect(stderr).toContain(`written for ${format}`);
      expect(await readdir(dir)).toEqual([name]);
    }
  });

  test.for(["", " ", "a/b", "ä", "a\u0000b", "x".repeat(151), "-"])(
    "refuses or keeps to a safe name: %j",
    async (name) => {
      const dir = await folder();
      const { code } = await call(["create", "--dir", dir, "--", name]);
      expect(code).toBe(name === "-" ? 0 : 2);
    },
  );
});
