import { spawn } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { program } from "../bin/program.ts";
import { needs } from "../support/parts.ts";
import { migrations, openSite, published, startBuckets, type BucketKind, type Site } from "./site.ts";

needs("versitygw", "fake-gcs-server");

const sources = fileURLToPath(new URL("../../src/", import.meta.url));

/** Files of ours that one run may load, at the most: reading them is most of what a start takes. Lower it when it can be lowered. */
const mostFiles = { up: 162, folder: 179, status: 133, help: 32 };
/** The same of the published program, whose files hold many of these. */
const mostOfBundle = { files: 10, bytes: 440 * 1_024, bytesToHelp: 88 * 1_024 };
/** Rooms, and parts of rooms, that nobody needs who has nothing to do on PostgreSQL. */
const notWhenIdle =
  /^(http|adopt|status\/await|telemetry|notify|event|dispatch|hook|driver\/mongodb|driver\/postgres\/(session|statements|backfill|worker|take-lease|hold-lease|probe)|release\/publish|release\/review|bin\/(server|open-(callers|policy|notifier|log)|work|config-(file|schema)))/;

/** Of Node's own modules, those that take a millisecond and more, and that asking a bucket and a database has no use for. */
const notOfNodeWhenIdle =
  /^NativeModule (child_process|fs\/promises|readline|tls|https|http2|worker_threads)$/;

/** Run before the program: writes down every file that it loads, and which modules of Node are there when it ends. */
const recorder = `
import { registerHooks } from "node:module";
import { writeFileSync } from "node:fs";
const loaded = [];
registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
process.on("exit", () => writeFileSync(process.env.LOADED_FILES, JSON.stringify({ loaded, ofNode: process.moduleLoadList })));`;

/** Runs the program to a good end; all files that it loads, in their order, the modules of Node, and what it says. */
async function filesOf(
  program: string,
  site: Site,
  argv: readonly string[],
): Promise<{
  readonly files: readonly string[];
  readonly ofNode: readonly string[];
  readonly said: string;
}> {
  const out = join(site.folder, "loaded.json");
  const hooks = `data:text/javascript,${encodeURIComponent(recorder)}`;
  const child = spawn(process.execPath, ["--import", hooks, program, ...argv], {
    env: { PATH: process.env["PATH"], ...site.variables, LOADED_FILES: out },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const ended = new Promise<unknown>((resolve) => child.on("close", resolve));
  const [said, wrong] = await Promise.all([text(child.stdout), text(child.stderr)]);
  expect([await ended, wrong]).toEqual([0, expect.any(String)]);
  const { loaded, ofNode } = JSON.parse(await readFile(out, "utf8")) as Record<"loaded" | "ofNode", string[]>;
  return {
    files: [...new Set(loaded)].filter((url) => url.startsWith("file:")).map((url) => fileURLToPath(url)),
    ofNode,
    said,
  };
}

/** What one run of the program loads from its sources. */
interface Loaded {
  /** of `src/`, by their paths in it */
  readonly ours: readonly string[];
  /** names of the packages that any other file is of */
  readonly packages: readonly string[];
  /** modules of Node's own */
  readonly ofNode: readonly string[];
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
  const { files, ofNode, said } = await filesOf(program, site, argv);
  const ours = files.filter((file) => file.startsWith(sources)).map((file) => file.slice(sources.length));
  return { ours, packages: packagesOf(files), ofNode, said };
}
/** What one run of the published program loads. */
interface LoadedOfBundle extends Loaded {
  readonly fileCount: number;
  readonly bytes: number;
}

async function loadedOfBundle(site: Site, argv: readonly string[]): Promise<LoadedOfBundle> {
  const { cli, folder, outputs } = await published();
  const { files, ofNode, said } = await filesOf(cli, site, argv);
  // Whatever is not of the bundle would be a package that is loaded from beside it.
  expect(files.filter((file) => !file.startsWith(`${folder}/`))).toEqual([]);
  const loaded = files.map((file) => outputs[file.slice(folder.length + 1)]);
  const inputs = loaded.flatMap((output) => output?.inputs ?? []);
  return {
    fileCount: loaded.length,
    bytes: loaded.reduce((sum, output) => sum + (output?.bytes ?? 0), 0),
    packages: packagesOf(inputs),
    ours: inputs.filter((input) => input.startsWith("src/")).map((input) => input.slice("src/".length)),
    ofNode,
    said,
  };
}

/** Names of the packages that these files are of. */
function packagesOf(files: readonly string[]): readonly string[] {
  const names = files.flatMap((file) => /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1] ?? []);
  return [...new Set(names)].toSorted();
}

/** Packages that may be loaded, all of them small. */
const may = {
  anything: /^commander$/,
  /** `pg` and what it is made of */
  postgres:
    /^(pg|pg-(cloudflare|connection-string|int8|pool|protocol|types)|pgpass|split2|postgres-(array|bytea|date|interval)|xtend)$/,
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
      const rooms = /^(source|release|history|plan|driver|audit|executor|adopt|status|http|runner\.ts)/;
      expect(ours.filter((file) => rooms.test(file))).toEqual([]);
      expect(ours.length).toBeLessThanOrEqual(mostFiles.help);
    }
  });
});

describe("the command line, as it is published,", () => {
  test.each([
    ["S3", () => s3],
    ["GCS", () => gcs],
  ] as const)("comes in few files for who has nothing to do, with a release in %s", async (kind, siteOf) => {
    const site = siteOf();
    const ofRelease = ["postgres", "release", ...(kind === "S3" ? (["s3"] as const) : [])] as const;
    for (const verb of ["up", "init", "status"]) {
      const loaded = await loadedOfBundle(site, [verb, ...site.flags]);
      expect(loaded.packages).toContain("pg");
      expect([verb, ...foreign(loaded, ...ofRelease)]).toEqual([verb]);
      expect([
        verb,
        ...loaded.ours.filter((file) => /^(http|driver\/mongodb|telemetry|notify)\//.test(file)),
      ]).toEqual([verb]);
      expect([verb, ...loaded.ofNode.filter((name) => notOfNodeWhenIdle.test(name))]).toEqual([verb]);
      expect(loaded.fileCount).toBeLessThanOrEqual(mostOfBundle.files);
      expect(loaded.bytes).toBeLessThanOrEqual(mostOfBundle.bytes);
    }
  });

  test("has all that any part of it asks for", async () => {
    const { folder, outputs } = await published();
    const files = Object.keys(outputs).filter((file) => file !== "cli.js");
    const loader = join(folder, "loader.mjs");
    await writeFile(
      loader,
      `const failed = [];
for (const file of ${JSON.stringify(files)})
  await import("./" + file).catch((error) => failed.push(file + ": " + error.message));
process.stderr.write(JSON.stringify(failed));
process.exit();`,
    );
    const child = spawn(process.execPath, [loader], { env: {}, stdio: ["ignore", "ignore", "pipe"] });
    expect(JSON.parse(await text(child.stderr))).toEqual([]);
  });

  test("needs no release for `wait`, and nothing but itself to say its version or to help", async () => {
    const wait = await loadedOfBundle(s3, ["wait", "--min", "1", "--stream", "orders"]);
    expect(wait.said).toContain("orders");
    expect(foreign(wait, "postgres", "release")).toEqual([]);
    expect(wait.bytes).toBeLessThanOrEqual(mostOfBundle.bytes);
    for (const argv of [["--version"], ["--help"]]) {
      const loaded = await loadedOfBundle(s3, argv);
      expect(loaded.packages).toEqual(["commander"]);
      expect(loaded.bytes).toBeLessThanOrEqual(mostOfBundle.bytesToHelp);
    }
  });
});
