import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  link,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  symlink,
  unlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { openSource } from "../../src/source/open.ts";
import { sourceSuite } from "../conformance/source.ts";

sourceSuite(
  "folder source",
  async () => {
    const folder = await makeFolder();
    const put = async (path: string, bytes: Uint8Array) => {
      await mkdir(dirname(path), { recursive: true });
      await writeFile(`${path}.new`, bytes);
      await rename(`${path}.new`, path);
    };
    await mkdir(join(folder, "orders"));
    return {
      source: await openSource(join(folder, "orders")),
      keepsVersions: false,
      put: (key, bytes) => put(join(folder, "orders", key), bytes),
      putBeside: (key, bytes) => put(join(folder, "orders-2", key), bytes),
    };
  },
  async () => openSource(join(await makeFolder(), "none")),
);

const { signal } = new AbortController();
const maxBytes = 1_000;
const unsafe = { name: "RunnerError", code: "SOURCE_UNSAFE" };

describe("folder source, attacked", () => {
  test("reads through no symbolic link that leads out", async () => {
    const folder = await makeFolder();
    const source = await openSource(join(folder, "inside"));
    await mkdir(join(folder, "inside"));
    await mkdir(join(folder, "inside-2"));
    await writeFile(join(folder, "inside-2", "secret.sql"), "secret");
    for (const [name, target] of [
      ["file.sql", "../inside-2/secret.sql"],
      ["absolute.sql", join(folder, "inside-2", "secret.sql")],
      ["hop.sql", "file.sql"],
    ] as const) {
      await symlink(target, join(folder, "inside", name));
      await expect(source.read(name, { maxBytes }, signal)).rejects.toMatchObject(unsafe);
      await expect(source.readIfChanged(name, undefined, { maxBytes }, signal)).rejects.toMatchObject(unsafe);
      await expect(source.list("", signal)).rejects.toMatchObject({ ...unsafe, fields: { key: name } });
      await unlink(join(folder, "inside", name)).catch(() => {});
    }
    await symlink("../inside-2", join(folder, "inside", "deep"));
    await expect(source.read("deep/secret.sql", { maxBytes }, signal)).rejects.toMatchObject(unsafe);
    await expect(source.list("deep/", signal)).rejects.toMatchObject(unsafe);
    await expect(
      source.write("deep/new.sql", Buffer.from("x"), { absent: true }, signal),
    ).rejects.toMatchObject(unsafe);
    await expect(
      source.write("deep/er/new.sql", Buffer.from("x"), { absent: true }, signal),
    ).rejects.toMatchObject(unsafe);
    expect(await readdir(join(folder, "inside-2"))).toEqual(["secret.sql"]);
  });

  test("says so when a link leads to nothing or in a circle", async () => {
    const folder = await makeFolder();
    const source = await openSource(folder);
    await symlink("gone.sql", join(folder, "1_a.up.sql"));
    await expect(source.list("", signal)).rejects.toMatchObject(unsafe);
    await expect(source.read("1_a.up.sql", { maxBytes }, signal)).rejects.toMatchObject(unsafe);
    await symlink("circle.sql", join(folder, "circle.sql"));
    await expect(source.read("circle.sql", { maxBytes }, signal)).rejects.toMatchObject(unsafe);
  });

  test("reads a ConfigMap as Kubernetes mounts it", async () => {
    const folder = await makeFolder();
    await mkdir(join(folder, "..2026_11_21"));
    await writeFile(join(folder, "..2026_11_21", "1_a.up.sql"), "SELECT 1;");
    await symlink("..2026_11_21", join(folder, "..data"));
    await symlink(join("..data", "1_a.up.sql"), join(folder, "1_a.up.sql"));
    const source = await openSource(folder);
    const [row, ...others] = await source.list("", signal);
    expect(others).toEqual([]);
    expect(row).toMatchObject({ key: "1_a.up.sql", size: 9 });
    const object = await source.read("1_a.up.sql", { maxBytes, version: row?.version ?? "" }, signal);
    expect(String(object?.bytes)).toBe("SELECT 1;");
  });

  test("takes a folder that is itself behind a symbolic link", async () => {
    const folder = await makeFolder();
    await mkdir(join(folder, "real"));
    await writeFile(join(folder, "real", "a.sql"), "a");
    await symlink("real", join(folder, "current"));
    const source = await openSource(join(folder, "current"));
    expect(await source.list("", signal)).toMatchObject([{ key: "a.sql" }]);
    expect(String((await source.read("a.sql", { maxBytes }, signal))?.bytes)).toBe("a");
  });

  test("does not wait for a FIFO, nor talk to a socket or device", async () => {
    const folder = await makeFolder();
    const source = await openSource(folder);
    const socket = createServer().listen(join(folder, "socket.sql"));
    onTestFinished(() => void socket.close());
    execFileSync("mkfifo", [join(folder, "fifo.sql")]);
    await expect(source.read("fifo.sql", { maxBytes }, signal)).rejects.toMatchObject(unsafe);
    await expect(source.read("socket.sql", { maxBytes }, signal)).rejects.toMatchObject(unsafe);
    await expect(source.list("fifo", signal)).rejects.toMatchObject(unsafe);
    const devices = await openSource("/dev");
    await expect(devices.read("zero", { maxBytes }, signal)).rejects.toMatchObject(unsafe);
  });

  test("refuses to list a deeper folder by a key that leads out", async () => {
    const source = await openSource(await makeFolder());
    for (const prefix of ["../", "a/../../", "/etc/", "./"]) {
      await expect(source.list(prefix, signal)).rejects.toMatchObject(unsafe);
    }
  });

  test("gives SOURCE_CHANGED for a file swapped since it was listed, even for one of the same size", async () => {
    const folder = await makeFolder();
    const source = await openSource(folder);
    await writeFile(join(folder, "a.sql"), "old");
    const [row] = await source.list("", signal);
    await writeFile(join(folder, "other"), "new");
    await rename(join(folder, "other"), join(folder, "a.sql"));
    await expect(
      source.read("a.sql", { maxBytes, version: row?.version ?? "" }, signal),
    ).rejects.toMatchObject({
      code: "SOURCE_CHANGED",
    });
  });
});

describe("folder source, as a place", () => {
  test("says that a folder is missing, or is none", async () => {
    const folder = await makeFolder();
    await writeFile(join(folder, "file"), "");
    for (const path of [join(folder, "none"), join(folder, "file")]) {
      const source = await openSource(path);
      const missing = { code: "SOURCE_NOT_FOUND" };
      await expect(source.list("", signal)).rejects.toMatchObject(missing);
      await expect(source.read("a", { maxBytes }, signal)).rejects.toMatchObject(missing);
      await expect(source.write("a", Buffer.from("a"), { absent: true }, signal)).rejects.toMatchObject(
        missing,
      );
    }
    expect(await readdir(folder)).toEqual(["file"]);
  });

  test("makes the folder with the first write, where it may", async () => {
    const folder = join(await makeFolder(), "new", "bucket");
    const source = await openSource(folder, { folder: { create: true } });
    expect(await source.list("", signal)).toEqual([]);
    expect(await source.read("head.json", { maxBytes }, signal)).toBeUndefined();
    await source.write("blobs/sha256-aa", Buffer.from("a"), { absent: true }, signal);
    expect(await readdir(join(folder, "blobs"))).toEqual(["sha256-aa"]);
  });

  test("says so where the system makes no folders, instead of trying for ever", async () => {
    // Linux only: elsewhere there is no /proc, and a root folder is refused in its own way.
    const source = await openSource("/proc/lockkeeper/bucket", { folder: { create: true } });
    const write = source.write("head.json", Buffer.from("1"), { absent: true }, signal);
    await expect(write).rejects.toMatchObject({ name: "RunnerError", fields: { key: "head.json" } });
  });

  test("leaves nothing but the objects behind", async () => {
    const folder = await makeFolder();
    const source = await openSource(folder);
    const first = await source.write("head.json", Buffer.from("1"), { absent: true }, signal);
    if (first === "conflict") throw new Error("could not create");
    await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        source.write("head.json", Buffer.from(`${index}`), first, signal),
      ),
    );
    await source.write("head.json", Buffer.from("late"), { absent: true }, signal);
    expect(await readdir(folder)).toEqual(["head.json"]);
  });

  test("breaks the lock of a writer that died, and lists neither it nor what it left", async () => {
    const folder = await makeFolder();
    const source = await openSource(folder);
    const first = await source.write("head.json", Buffer.from("1"), { absent: true }, signal);
    if (first === "conflict") throw new Error("could not create");
    const digest = createHash("sha256").update("head.json").digest("hex").slice(0, 32);
    const lock = join(folder, `.lockkeeper-${digest}.lock`);
    await writeFile(lock, "");
    await writeFile(join(folder, ".lockkeeper-0123-abcd.tmp"), "half");
    const longAgo = new Date(Date.now() - 3_600_000);
    await utimes(lock, longAgo, longAgo);
    expect(await source.list("", signal)).toMatchObject([{ key: "head.json" }]);
    expect(await source.write("head.json", Buffer.from("2"), first, signal)).not.toBe("conflict");
    expect(await readFile(join(folder, "head.json"), "utf8")).toBe("2");
  });

  test("shows an open reader the old object whole while it is replaced", async () => {
    const folder = await makeFolder();
    const source = await openSource(folder);
    const old = await source.write("a", Buffer.from("old"), { absent: true }, signal);
    if (old === "conflict") throw new Error("could not create");
    // A second name for the old state: were it written in place, this would change too.
    await link(join(folder, "a"), join(folder, "b"));
    await source.write("a", Buffer.from("new!"), old, signal);
    expect(await readFile(join(folder, "b"), "utf8")).toBe("old");
    expect(await readFile(join(folder, "a"), "utf8")).toBe("new!");
  });
});

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-folder-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  return folder;
}
