import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { onTestFinished } from "vitest";
import { openSource } from "../../src/source/open.ts";
import { sourceSuite } from "../conformance/source.ts";

sourceSuite("folder source", async () => {
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
});

async function makeFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-folder-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  return folder;
}
