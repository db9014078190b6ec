import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { detectedFormat, namedFormat } from "../../src/migration/format/choose-format.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import { publishRelease } from "../../src/release/publish/publish.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { createDatabase, ownPostgres, type PostgresServer } from "../support/database.ts";
import { needs } from "../support/parts.ts";
import { succeeded } from "../support/peer.ts";
import { folderSource, makeKeys, never, tempFolder } from "../support/release.ts";
import { targetOn } from "../support/target.ts";
import { dump } from "./dump.ts";
import { type Tool, tools } from "./tool.ts";

needs("pg_dump", ...tools.map(({ part }) => part));

const lockkeeper = promisify(execFile);
const cli = path.join(import.meta.dirname, "../../src/bin/cli.ts");
const toNone = { action: "rollback", goal: { kind: "version", version: "0", allow: "down" } } as const;

/** PostgreSQL 15, because pg_dump 15 compares what was made. */
let server: PostgresServer;
beforeAll(async () => {
  server = await ownPostgres({ major: 15 });
});

/** What a tool makes of its folder. */
interface Outcome {
  readonly afterUp: string;
  /** absent where it knows no way down */
  readonly afterDown?: string;
  readonly afterAgain?: string;
}

const outcomes = new Map<Tool, Promise<Outcome>>();

/** The real tool's work, done once for all tests. */
function byItself(tool: Tool): Promise<Outcome> {
  const outcome = outcomes.get(tool) ?? work(tool);
  outcomes.set(tool, outcome);
  return outcome;
}

async function work(tool: Tool): Promise<Outcome> {
  const database = await createDatabase({ server, endsWith: "file" });
  const folder = folderOf(tool);
  const site = { url: database.url, folder };
  await succeeded(tool.up(site));
  const afterUp = await dump(database, tool);
  if (tool.down === undefined) return { afterUp };
  await succeeded(tool.down(site, versionsIn(folder)));
  const afterDown = await dump(database, tool);
  await succeeded(tool.up(site));
  return { afterUp, afterDown, afterAgain: await dump(database, tool) };
}

describe.each(tools)("a folder made for $format", (tool) => {
  const folder = folderOf(tool);
  const settings = { engine: "postgres", variables: {}, placeholders: {}, ...tool.settings } as const;

  test("comes up plain, goes down and comes up again as by the tool itself", async () => {
    const { afterUp, afterDown, afterAgain } = await byItself(tool);
    const database = await createDatabase({ server });
    const target = await targetOn(
      database.url,
      plainReleases({
        source: folderSource(folder),
        stream: "orders",
        environment: "default",
        engine: "postgres",
        format: namedFormat(tool.format, settings),
        allowLate: false,
      }),
    );
    expect(await target.run()).toMatchObject({ error: null, outcome: "applied", left: 0 });
    expect(await dump(database, tool)).toBe(afterUp);
    expect(await target.run()).toMatchObject({ error: null, outcome: "noop" });

    if (afterDown === undefined) return;
    expect(await target.run(toNone)).toMatchObject({ error: null, outcome: "rolled_back" });
    expect(await dump(database, tool)).toBe(afterDown);
    expect(await target.run()).toMatchObject({ error: null, outcome: "applied" });
    expect(await dump(database, tool)).toBe(afterAgain);
  });

  test("is known by its files when it is published, and comes up signed as by the tool itself", async () => {
    const { afterUp } = await byItself(tool);
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
        format: detectedFormat(settings),
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
    expect(await target.run()).toMatchObject({ error: null, outcome: "applied", left: 0 });
    expect(await dump(database, tool)).toBe(afterUp);
  });
});

describe("on the command line, unsigned and known by its files,", () => {
  test.each(tools.filter(({ settings }) => settings !== undefined))(
    "a folder made for $format comes up as by the tool itself, with what its text refers to",
    async (tool) => {
      const { afterUp } = await byItself(tool);
      const database = await createDatabase({ server });
      const folder = folderOf(tool);
      const { placeholders = {}, variables = {} } = tool.settings ?? {};
      const flags = Object.entries(placeholders).flatMap(([name, value]) => [
        "--placeholder",
        `${name}=${value}`,
      ]);
      const args = ["up", "--source", folder, "--unsigned", "--output", "json", ...flags];
      const env = { ...variables, PATH: process.env["PATH"], DATABASE_URL: database.url };
      const { stdout } = await lockkeeper(process.execPath, [cli, ...args], { cwd: folder, env });
      expect(JSON.parse(stdout)).toMatchObject({ error: null, outcome: "applied" });
      expect(await dump(database, tool)).toBe(afterUp);
    },
  );
});

function folderOf({ format }: Tool): string {
  return path.join(import.meta.dirname, "folder", format);
}

/** How often a tool that goes down one by one has to be told. */
function versionsIn(folder: string): number {
  return readdirSync(folder).filter((name) => /^[0-9].*\.sql$/.test(name)).length;
}
