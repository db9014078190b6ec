import { execFile } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openSource } from "../src/source/open.ts";
import { startGcs, startS3 } from "./support/bucket.ts";
import { createDatabase } from "./support/database.ts";
import { needs, part } from "./support/parts.ts";
import { folderSource, makeKey, publishTo } from "./support/release.ts";
import { startServer, untilReady, withFreePort } from "./support/server.ts";
import { createIssuer, testAudience } from "./support/token.ts";

needs("buildah", "podman", "base-image", "versitygw", "fake-gcs-server");

const root = path.join(import.meta.dirname, "..");
const image = "localhost/lockkeeper-test";

/** Runs a program to its end; when it fails, the error says what it printed. */
async function run(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  try {
    const options = { cwd: root, env: { ...process.env, ...env }, maxBuffer: 1e8 };
    return (await promisify(execFile)(command, args, options)).stdout;
  } catch (error) {
    const { stdout = "", stderr = "" } = error as { stdout?: string; stderr?: string };
    throw new Error(`${path.basename(command)} failed:\n${stdout.slice(-4_000)}\n${stderr.slice(-4_000)}`, {
      cause: error,
    });
  }
}

let folder: string;

/** Makes images and containers of our own folder, starting from the images that `npm run parts` keeps. */
function container(tool: "buildah" | "podman", args: readonly string[]): Promise<string> {
  return run(part(tool), args, { CONTAINERS_STORAGE_CONF: path.join(folder, "storage.conf") });
}

beforeAll(async () => {
  // A short name: podman takes no path of more than 50 characters for what it keeps while it runs.
  folder = mkdtempSync(path.join(tmpdir(), "c-"));
  // The container's user is a stranger here as well.
  chmodSync(folder, 0o755);
  writeFileSync(
    path.join(folder, "storage.conf"),
    `[storage]
driver = "overlay"
graphroot = "${folder}/images"
runroot = "${folder}/run"
[storage.options]
additionalimagestores = ["${realpathSync(part("base-image"))}/root"]
`,
  );
  // The build asks the registry that npm asks here, trusts whom this machine trusts, and shares its cache.
  const npm = async (name: string) => (await run("npm", ["config", "get", name])).trim();
  const certificates = "/etc/ssl/certs/ca-certificates.crt";
  const npmrc = path.join(folder, "npmrc");
  writeFileSync(npmrc, `registry=${await npm("registry")}\ncafile=${certificates}\n`);
  const volumes = [
    `${npmrc}:/root/.npmrc:ro`,
    `/etc/ssl/certs:/etc/ssl/certs:ro`,
    `${await npm("cache")}:/root/.npm`,
  ];
  const options = ["--isolation=chroot", "--pull-never", "--format=docker", `--tag=${image}`];
  await container("buildah", ["bud", ...options, ...volumes.map((volume) => `--volume=${volume}`), root]);
}, 300_000);

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** One migration, up and down. */
const orders = {
  "000001_orders.up.sql": "create table orders (id bigint primary key);\n",
  "000001_orders.down.sql": "drop table orders;\n",
};

/** A user id that the image has never heard of. */
const anyUser = 20_000 + Math.floor(Math.random() * 40_000);

/** Arguments of podman that start the image as a stranger who may write nothing. */
function confined(
  command: readonly string[],
  options: readonly string[] = [],
  user: number = anyUser,
): string[] {
  const engine = ["--cgroup-manager=cgroupfs", "--runtime=runc"];
  const stranger = [`--user=${user}:${user}`, "--cap-drop=all", "--security-opt=no-new-privileges"];
  const readOnly = ["--read-only", "--read-only-tmpfs=false"];
  const limits = [
    "--memory=128m",
    "--memory-swap=128m",
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=4096:4096",
  ];
  const run = ["run", "--rm", "--network=host", ...stranger, ...readOnly, ...limits, ...options];
  return [...engine, ...run, image, ...command];
}

describe("the image", () => {
  test("tells its version", async () => {
    const stdout = await container("podman", confined(["--version"]));
    expect(stdout.trim()).toMatch(/^lockkeeper \d+\.\d+\.\d+$/);
  });

  test("is called by its name from a shell in it, as pipelines do", async () => {
    const stdout = await container("podman", confined(["-c", "lockkeeper --version"], ["--entrypoint=sh"]));
    expect(stdout.trim()).toMatch(/^lockkeeper \d+\.\d+\.\d+$/);
  });

  test("carries what runs, and no compiler, test or source", async () => {
    const look =
      "console.log(JSON.stringify([fs.readdirSync('/app').sort(), fs.readdirSync('/app/node_modules'), process.getuid()]))";
    const stdout = await container("podman", confined(["-e", look], ["--entrypoint=node"]));
    expect(JSON.parse(stdout)).toEqual([
      ["LICENSES.txt", "chunks", "cli.js", "compiled", "lockkeeper.cdx.json", "node_modules", "package.json"],
      ["libpg-query"],
      anyUser,
    ]);
    const sum =
      "const size=(p)=>fs.statSync(p).isDirectory()?fs.readdirSync(p).reduce((n,f)=>n+size(p+'/'+f),0):fs.statSync(p).size;console.log(size('/app'))";
    expect(Number(await container("podman", confined(["-e", sum], ["--entrypoint=node"], 0)))).toBeLessThan(
      12 * 1024 * 1024,
    );
  });

  test("names in its bill of materials what is bundled in it, and its licences", async () => {
    const read =
      "const t=fs.readFileSync('/app/lockkeeper.cdx.json','utf8');const l=fs.readFileSync('/app/LICENSES.txt','utf8');console.log(JSON.stringify([JSON.parse(t).components.map((c)=>c.name),/^pg \\d/m.test(l)]))";
    const [names, hasLicence] = JSON.parse(
      await container("podman", confined(["-e", read], ["--entrypoint=node"])),
    ) as [string[], boolean];
    expect(names).toEqual(expect.arrayContaining(["pg", "hono", "libpg-query"]));
    expect(hasLicence).toBe(true);
  });

  test("has the compiled code that its own user finds, and says so in its labels who it is", async () => {
    const look =
      "console.log(require('node:module').getCompileCacheDir(), fs.readdirSync('/app/compiled').join())";
    const stdout = await container("podman", confined(["-e", look], ["--entrypoint=node"], 65_532));
    const [used = "", there = ""] = stdout.trim().split(" ");
    expect(used).toBe(`/app/compiled/${there}`);
    const labels = await container("podman", [
      "inspect",
      "--format={{json .Config.Labels}} {{.Config.User}}",
      image,
    ]);
    expect(labels).toContain('"org.opencontainers.image.title":"lockkeeper"');
    expect(labels).toContain("65532:65532");
  });

  test("is held to its memory by these tests, so that what they say of 128 MiB is true", async () => {
    const take = "console.log(Buffer.alloc(160e6, 1).length)";
    await expect(container("podman", confined(["-e", take], ["--entrypoint=node"]))).rejects.toThrow(
      "podman failed",
    );
    const small = take.replace("160e6", "16e6");
    expect(await container("podman", confined(["-e", small], ["--entrypoint=node"]))).toBe("16000000\n");
  });

  test("applies a folder of migrations as any user id on a read-only root", async () => {
    const database = await createDatabase();
    const migrations = path.join(folder, "migrations");
    mkdirSync(migrations);
    writeFileSync(
      path.join(migrations, "000001_orders.up.sql"),
      "create table orders (id bigint primary key);\n",
    );
    writeFileSync(path.join(migrations, "000001_orders.down.sql"), "drop table orders;\n");
    const stdout = await container(
      "podman",
      confined(
        ["up", "--source", "/migrations", "--unsigned", "--stream", "orders", "--output", "json"],
        [`--volume=${migrations}:/migrations:ro`, `--env=DATABASE_URL=${database.url}`],
      ),
    );
    expect(JSON.parse(stdout)).toMatchObject({ outcome: "applied" });
    expect(await database.query("select id from orders")).toEqual([]);
  });

  test.for([
    ["S3", () => startS3("versitygw")],
    ["GCS", () => startGcs()],
  ] as const)(
    "init from %s applies 1,000 migrations of 1 KiB within 128 MiB, and tells the kubelet",
    { timeout: 180_000 },
    async ([kind, start], { expect: check }) => {
      await using server = await start();
      const database = await createDatabase();
      const key = makeKey();
      const bucket = await server.createBucket();
      const url = `${bucket}/orders`;
      const filler = "x".repeat(900);
      const files = Object.fromEntries(
        Array.from({ length: 1_000 }, (_, index) => [
          `${String(index + 1).padStart(6, "0")}_t.up.sql`,
          `create table t${index + 1} (id int); -- ${filler}\n`,
        ]),
      );
      await publishTo(await openSource(url, server.options), files, { keys: [key] });
      const pod = mkdtempSync(path.join(folder, "pod-"));
      chmodSync(pod, 0o755);
      writeFileSync(path.join(pod, "orders.pub"), key.publicPem);
      writeFileSync(path.join(pod, "message"), "");
      chmodSync(path.join(pod, "message"), 0o666);
      const { s3 } = server.options;
      const variables = {
        DATABASE_URL: database.url,
        ...(s3 === undefined
          ? { LOCKKEEPER_GCS_ENDPOINT: server.endpoint }
          : {
              LOCKKEEPER_S3_ENDPOINT: server.endpoint,
              LOCKKEEPER_S3_PATH_STYLE: "true",
              AWS_REGION: "us-east-1",
              AWS_ACCESS_KEY_ID: s3.credentials?.accessKeyId ?? "",
              AWS_SECRET_ACCESS_KEY: s3.credentials?.secretAccessKey ?? "",
            }),
      };
      const options = [
        `--volume=${pod}:/pod:ro`,
        `--volume=${pod}/message:/dev/termination-log`,
        ...Object.entries(variables).map(([name, value]) => `--env=${name}=${value}`),
      ];
      const args = ["init", "--source", url, "--trust", "/pod/orders.pub", "--stream", "orders"];
      await container("podman", confined(args, options, 65_532));
      check(readFileSync(path.join(pod, "message"), "utf8")).toMatch(
        /^lockkeeper OK orders 0 -> 001000 \(1000 done, /,
      );
      const [row] = await database.query(
        "select count(*)::int as n from pg_tables where tablename ~ '^t[0-9]+$'",
      );
      check([kind, row]).toEqual([kind, { n: 1_000 }]);
    },
  );

  test("serves the API by default until it is told to stop, and applies a signed release", async () => {
    const database = await createDatabase();
    const issuer = await createIssuer();
    const key = makeKey();
    const settings = path.join(folder, "settings");
    mkdirSync(settings);
    const write = (name: string, content: unknown) =>
      writeFileSync(
        path.join(settings, name),
        typeof content === "string" ? content : JSON.stringify(content),
      );
    await publishTo(folderSource(path.join(settings, "bucket")), orders, { keys: [key] });
    write("jwks.json", issuer.jwks);
    write("policy.json", {
      schema: "urn:lockkeeper:policy:v1",
      audience: testAudience,
      issuers: { ci: { issuer: issuer.url, jwksFile: "jwks.json", algs: ["ES256"], maxTokenAge: "10m" } },
      rules: [
        {
          id: "ci",
          issuer: "ci",
          match: { sub: "ci" },
          allow: { targets: ["orders"], actions: ["apply", "status"] },
        },
      ],
    });
    const configuration = {
      version: 1,
      policy: "policy.json",
      trust: { ours: { keys: [key.publicPem] } },
      targets: {
        orders: {
          engine: "postgres",
          stream: "orders",
          source: "./bucket",
          trust: "ours",
          database: { urlEnv: "DATABASE_URL" },
        },
      },
    };
    let url = "";
    await using server = await withFreePort(async (port) => {
      url = `http://127.0.0.1:${port}`;
      write("lockkeeper.yaml", { ...configuration, publicUrl: url });
      const options = [
        `--volume=${settings}:/etc/lockkeeper:ro`,
        `--env=DATABASE_URL=${database.url}`,
        `--env=LOCKKEEPER_LISTEN=127.0.0.1:${port}`,
      ];
      const started = startServer({
        command: part("podman"),
        args: confined([], options),
        env: { CONTAINERS_STORAGE_CONF: path.join(folder, "storage.conf") },
        folder: mkdtempSync(path.join(tmpdir(), "lockkeeper-podman-")),
      });
      await untilReady("the container", started, async () => (await fetch(`${url}/health/ready`)).ok);
      return started;
    });

    const answer = await fetch(`${url}/v1/runs`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${await issuer.token()}`,
        "content-type": "application/json",
        prefer: "wait=55",
      },
      body: JSON.stringify({ target: "orders", action: "apply" }),
    });
    expect([answer.status, await answer.json()]).toMatchObject([200, { outcome: "applied" }]);
    expect(await database.query("select id from orders")).toEqual([]);
    await server.stop();
    expect(server.output()).toContain("server.stopped");
  });
});
