import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { namedFormat } from "../../src/migration/format/choose-format.ts";
import { plainReleases } from "../../src/release/plain.ts";
import { publishRelease } from "../../src/release/publish.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { createDatabase, ownPostgres, type PostgresServer } from "../support/database.ts";
import { needs } from "../support/parts.ts";
import { succeeded } from "../support/peer.ts";
import { folderSource, makeKeys, never, tempFolder } from "../support/release.ts";
import { targetOn } from "../support/target.ts";
import { dump } from "./dump.ts";
import { tools } from "./tool.ts";

needs("pg_dump", ...tools.map(({ part }) => part));

const lockkeeper = promisify(execFile);
const cli = path.join(import.meta.dirname, "../../src/bin/cli.ts");
const toNone = { action: "rollback", goal: { kind: "version", version: "0", allow: "down" } } as const;

/** PostgreSQL 15, because pg_dump 15 compares what was made. */
let server: PostgresServer;
beforeAll(async () => {
  server = await ownPostgres({ major: 15 });
});

const ready = tools.filter(({ format }) => existsSync(path.join(import.meta.dirname, "folder", format)));

describe.each(ready)("a folder made for $format", (tool) => {
  const folder = path.join(import.meta.dirname, "folder", tool.format);
  const settings = { engine: "postgres", variables: {}, placeholders: {}, ...tool.settings } as const;
  const format = namedFormat(tool.format, settings);
  /** what the real tool makes of it, up, down and up again */
  let afterUp: string;
  let afterDown: string | undefined;
  let afterAgain: string;

  beforeAll(async () => {
    const database = await createDatabase({ server });
    const site = { url: database.url, folder };
    await succeeded(tool.up(site));
    afterUp = await dump(database, tool);
    if (tool.down === undefined) return;
    await succeeded(tool.down(site, versionsIn(folder)));
    afterDown = await dump(database, tool);
    await succeeded(tool.up(site));
    afterAgain = await dump(database, tool);
  });

  test("comes up plain, goes down and comes up again as by the tool itself", async () => {
    const database = await createDatabase({ server });
    const at = {
      source: folderSource(folder),
      stream: "orders",
      environment: "default",
      engine: "postgres",
    } as const;
    const target = await targetOn(database.url, plainReleases({ ...at, format, allowLate: false }));
    expect(await target.run()).toMatchObject({ status: "succeeded", outcome: "applied", left: 0 });
    expect(await dump(database, tool)).toBe(afterUp);
    expect(await target.run()).toMatchObject({ outcome: "noop" });

    if (afterDown === undefined) return;
    expect(await target.run(toNone)).toMatchObject({ outcome: "rolled_back" });
    expect(await dump(database, tool)).toBe(afterDown);
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    expect(await dump(database, tool)).toBe(afterAgain);
  });

  test("comes up from a signed release as by the tool itself", async () => {
    const database = await createDatabase({ server });
    const destination = await tempFolder();
    onTestFinished(() => destination[Symbol.asyncDispose]());
    const { key, trust } = makeKeys();
    await publishRelease(
      {
        folder: folderSource(folder),
        destination: destination.source,
        stream: "orders",
        engine: "postgres",
        format,
        environments: ["default"],
        expiresInDays: 1,
        keys: [key],
        allowLate: false,
        now: new Date(),
        emit: () => undefined,
      },
      never,
    );
    const at = { stream: "orders", environment: "default", engine: "postgres", trust } as const;
    const target = await targetOn(database.url, signedReleases({ ...at, source: destination.source }));
    expect(await target.run()).toMatchObject({ status: "succeeded", outcome: "applied", left: 0 });
    expect(await dump(database, tool)).toBe(afterUp);
  });

  test("is known by its files on the command line, and comes up as by the tool itself", async () => {
    const database = await createDatabase({ server });
    const args = ["up", "--source", folder, "--unsigned", "--output", "json"];
    const env = { PATH: process.env["PATH"], HOME: folder, DATABASE_URL: database.url };
    const { stdout } = await lockkeeper(process.execPath, [cli, ...args], { cwd: folder, env });
    expect(JSON.parse(stdout)).toMatchObject({ outcome: "applied" });
    expect(await dump(database, tool)).toBe(afterUp);
  });
});

/** How often a tool that goes down one by one has to be told. */
function versionsIn(folder: string): number {
  return readdirSync(folder).filter((name) => /^[0-9].*\.sql$/.test(name)).length;
}
