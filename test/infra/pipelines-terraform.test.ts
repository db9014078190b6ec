import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, onTestFinished, test } from "vitest";
import { front } from "../http/front.ts";
import { createWorld, users } from "../http/world.ts";
import { needs, part } from "../support/parts.ts";
import { tempFolder } from "../support/release.ts";
import { infra, programFolder } from "./pipeline.ts";

needs("terraform");

const run = promisify(execFile);

test(
  "terraform applies a release once, again where it failed, and keeps no token",
  { timeout: 180_000 },
  async () => {
    const page = readFileSync(join(infra, "pipelines.md"), "utf8");
    const text = /^```hcl terraform\n([\s\S]*?)^```$/m.exec(page)?.[1] ?? "";
    const world = await createWorld();
    const { url, paths } = await front(world);
    const folder = await tempFolder();
    onTestFinished(async () => folder[Symbol.asyncDispose]());
    const path = `${await programFolder(folder.path)}:${process.env["PATH"] ?? ""}`;
    const token = await world.token();
    await writeFile(join(folder.path, "token"), token);
    await writeFile(
      join(folder.path, "main.tf"),
      text.replace("https://migrate.example", url).replace("orders-prod", "orders"),
    );
    const env = {
      PATH: path,
      HOME: folder.path,
      LOCKKEEPER_TOKEN_FILE: join(folder.path, "token"),
      // asks no server whether there is a newer one
      CHECKPOINT_DISABLE: "1",
    };
    const terraform = async (...args: readonly string[]): Promise<string> =>
      (await run(part("terraform"), args, { cwd: folder.path, env })).stdout;
    const apply = async (release: string): Promise<string> =>
      terraform("apply", "-auto-approve", "-no-color", "-input=false", `-var=release=${release}`);

    await terraform("init", "-input=false");
    await expect(apply(`sha256:${"0".repeat(64)}`)).rejects.toThrow("RELEASE_NOT_FOUND");
    const release = await world.bucket.publish(users);
    await writeFile(join(folder.path, "token"), await world.token());
    expect(await apply(release)).toContain("1_users.up.sql applied in");
    const asked = paths.length;
    expect(await apply(release)).toContain("No changes.");
    expect(paths).toHaveLength(asked);
    expect(readFileSync(join(folder.path, "terraform.tfstate"), "utf8")).not.toContain(token);
  },
);
