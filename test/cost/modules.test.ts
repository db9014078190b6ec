import { spawn } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { program } from "../bin/program.ts";
import { needs } from "../support/parts.ts";
import { migrations, openSite, startBuckets, type BucketKind, type Site } from "./site.ts";

needs("versitygw", "fake-gcs-server");

const sources = fileURLToPath(new URL("../../src/", import.meta.url));

/** Files of ours that one run may load, at the most: reading them is most of what a start takes. Lower it when it can be lowered. */
const mostFiles = { up: 210, folder: 218, status: 180, help: 30 };
/** Rooms, and parts of rooms, that nobody needs who has nothing to do on PostgreSQL. */
const notWhenIdle =
  /^(http|adopt|status\/await|telemetry|notify|event|dispatch|hook|driver\/mongodb|release\/publish|release\/review|bin\/(server|open-(callers|policy|notifier|log)|work|config-(file|schema)))/;

/** Run before the program: writes down every file that it loads. */
const recorder = `
import { registerHooks } from "node:module";
import { writeFileSync } from "node:fs";
const loaded = [];
registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
process.on("exit", () => writeFileSync(process.env.LOADED_FILES, JSON.stringify(loaded)));`;

/** What one run of the program loads. */
interface Loaded {
  /** of `src/`, by their paths in it */
  readonly ours: readonly string[];
  /** names of the packages that any other file is of */
  readonly packages: readonly string[];
  readonly said: string;
}

let s3: Site;
let gcs: Site;
beforeAll(async () => {
  const ready = async (kind: BucketKind): Promise<Site> => {
    const site = await openSite(await startBuckets(kind));
    await site.publish(migrations(10));
    await site.cost(["up"]);
    return site;
  };
  [s3, gcs] = await Promise.all([ready("S3"), ready("GCS")]);
});

async function loadedBy(site: Site, argv: readonly string[]): Promise<Loaded> {
  const out = join(site.folder, "loaded.json");
  const hooks = `data:text/javascript,${encodeURIComponent(recorder)}`;
  const child = spawn(process.execPath, ["--import", hooks, program, ...argv], {
    env: { PATH: process.env["PATH"], ...site.variables, LOADED_FILES: out },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise<unknown>((resolve) => child.on("close", resolve));
  const said = await text(child.stdout);
  expect(await ended).toBe(0);
  const urls = new Set(JSON.parse(await readFile(out, "utf8")) as readonly string[]);
  const files = [...urls].filter((url) => url.startsWith("file:")).map((url) => fileURLToPath(url));
  const packages = files.flatMap((file) => /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1] ?? []);
  const ours = files.filter((file) => file.startsWith(sources)).map((file) => file.slice(sources.length));
  return { ours, packages: [...new Set(packages)].toSorted(), said };
}
/** Packages that may be loaded, all of them small. */
const may = {
  anything: /^commander$/,
  /** `pg` and what it is made of */
  postgres:
    /^(pg|pg-(connection-string|int8|pool|protocol|types)|postgres-(array|bytea|date|interval)|xtend)$/,
  release: /^(valibot|ulid)$/,
  s3: /^aws4$/,
} as const;

/** Those that nothing of `allowed` names: an SDK, MongoDB's driver, a parser of SQL or YAML, telemetry, the server. */
function foreign({ packages }: Loaded, ...allowed: readonly (keyof typeof may)[]): readonly string[] {
  return packages.filter((name) => !["anything" as const, ...allowed].some((group) => may[group].test(name)));
}

describe("the command line, from its sources,", () => {
  test.each([
    ["S3", () => s3],
    ["GCS", () => gcs],
  ] as const)(
    "loads no SDK, no other database and no parser for a run from %s that has nothing to do",
    async (kind, siteOf) => {
      const site = siteOf();
      const up = await loadedBy(site, ["up", ...site.flags]);
      expect(up.said).toContain("nothing to do");
      expect(up.packages).toContain("pg");
      expect(up.ours).toContain("runner.ts");
      expect(foreign(up, "postgres", "release", ...(kind === "S3" ? (["s3"] as const) : []))).toEqual([]);
      expect(up.ours.filter((file) => notWhenIdle.test(file))).toEqual([]);
      expect(up.ours.length).toBeLessThanOrEqual(mostFiles.up);
    },
  );

  test("loads no SDK for a status", async () => {
    const status = await loadedBy(s3, ["status", ...s3.flags]);
    expect(status.said).toContain("pending");
    expect(foreign(status, "postgres", "release", "s3")).toEqual([]);
    expect(status.ours.filter((file) => notWhenIdle.test(file))).toEqual([]);
    expect(status.ours.length).toBeLessThanOrEqual(mostFiles.status);
  });

  test("loads no bucket's client for a folder that has nothing new", async () => {
    const folder = join(s3.folder, "migrations");
    await mkdir(folder);
    await writeFile(join(folder, "1_plain.up.sql"), "CREATE TABLE plain (id int);");
    const flags = ["--source", folder, "--stream", "plain", "--unsigned"];
    await s3.cost(["up"], flags);
    const up = await loadedBy(s3, ["up", ...flags]);
    expect(up.said).toContain("nothing to do");
    expect(up.packages).toContain("pg");
    expect(foreign(up, "postgres", "release")).toEqual([]);
    expect(up.ours.filter((file) => /^source\/(s3|gcs|http)/.test(file))).toEqual([]);
    expect(up.ours.filter((file) => notWhenIdle.test(file))).toEqual([]);
    expect(up.ours.length).toBeLessThanOrEqual(mostFiles.folder);
  });

  test("loads neither a database's driver nor a release's rules to say its version or to help", async () => {
    for (const argv of [["--version"], ["--help"], ["up", "--help"]]) {
      const { ours, packages, said } = await loadedBy(s3, argv);
      expect(said).not.toBe("");
      expect(packages).toEqual(["commander"]);
      expect(ours.filter((file) => !/^(cli|bin|report|migration)\/|^(error|build)\.ts$/.test(file))).toEqual(
        [],
      );
      expect(ours.length).toBeLessThanOrEqual(mostFiles.help);
    }
  });
});
