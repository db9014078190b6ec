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
import { join } from "node:path";
import { promisify } from "node:util";
import { CreateBucketCommand, S3Client } from "@aws-sdk/client-s3";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { formatChainEnd } from "../../src/release/chain.ts";
import { openSource } from "../../src/source/open.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { createDatabase, ownPostgres, type TestDatabase } from "../support/database.ts";
import { needs, part } from "../support/parts.ts";
import { makeKey, publishTo, type Files } from "../support/release.ts";
import {
  dataOf,
  imageStart,
  kustomize,
  manifestsIn,
  podsIn,
  root,
  type Container,
  type Manifest,
} from "./manifests.ts";
import { finalExits, startOf } from "./pod-rules.ts";

// What the manifests ask of a kubelet, asked of podman: the same user, file system, rights, memory, arguments, variables and
// files. The image is the one that ours is made from, with what ours adds mounted into it; container.test.ts builds ours.
needs("podman", "base-image", "kubectl", "psql", "versitygw");

const run = promisify(execFile);
const key = makeKey();
const good = { "000001_orders.up.sql": "create table orders (id bigint primary key);\n" };
const bad = { ...good, "000002_bad.up.sql": "insert into orders select 1 / 0;\n" };

let folder: string;
let bucket: S3Server;
/** of the database's two roles, by their names */
let logins: Readonly<Record<string, string>>;
let database: TestDatabase;

beforeAll(async () => {
  bucket = await startS3("versitygw");
  const { endpoint, credentials } = bucket;
  const client = new S3Client({ endpoint, credentials, region: "us-east-1", forcePathStyle: true });
  await client.send(new CreateBucketCommand({ Bucket: "acme-releases" }));
  client.destroy();

  // A short name: podman takes no path of more than 50 characters for what it keeps while it runs.
  folder = mkdtempSync(join(tmpdir(), "p-"));
  chmodSync(folder, 0o755);
  writeFileSync(
    join(folder, "storage.conf"),
    `[storage]
driver = "overlay"
graphroot = "${folder}/images"
runroot = "${folder}/run"
[storage.options]
additionalimagestores = ["${realpathSync(part("base-image"))}/root"]
`,
  );
  await run(process.execPath, [join(root, "infra/image/bundle.ts"), join(folder, "app")], { cwd: root });

  // roles belong to the whole server
  database = await createDatabase({ server: await ownPostgres({ major: 18 }), endsWith: "file" });
  await database.query("create role orders_app login");
  const names = {
    database: new URL(database.url).pathname.slice(1),
    owner: "orders_owner",
    app: "orders_app",
  };
  const variables = Object.entries(names).flatMap(([name, value]) => ["-v", `${name}=${value}`]);
  const script = join(root, "infra/sql/roles-postgres.sql");
  await run(part("psql"), [database.url, "-qX", "-v", "ON_ERROR_STOP=1", ...variables, "-f", script]);
  const loginOf = async (role: string): Promise<readonly [string, string]> => {
    await database.query(`alter role ${role} password 'sesame'`);
    const url = new URL(database.url);
    url.username = role;
    url.password = "sesame";
    return [role, url.href];
  };
  logins = Object.fromEntries([await loginOf("lockkeeper_runner"), await loginOf("lockkeeper_reader")]);
}, 180_000);

afterAll(async () => {
  await bucket.stop();
  rmSync(folder, { recursive: true, force: true });
});

/** Publishes to where the manifests' configuration looks. */
async function publish(files: Files): Promise<{ readonly digest: string; readonly chain: string }> {
  const destination = await openSource("s3://acme-releases/orders", bucket.options);
  const result = await publishTo(destination, files, { keys: [key], environments: ["production"] });
  return { digest: result.digest, chain: formatChainEnd(result.chain) };
}

/** The end of a container, as `kubectl describe` shows it. */
interface Ended {
  readonly exit: number;
  readonly message: string;
}

/** Runs the container called lockkeeper of a folder of infra/kubernetes: of its first pod, or of what a kind makes. */
async function start(
  name: string,
  release: { readonly digest: string; readonly chain: string },
  kind = "",
): Promise<Ended> {
  const manifests = manifestsIn(
    (await kustomize(join(root, "infra/kubernetes", name)))
      .replaceAll(/sha256:0{64}/g, release.digest)
      .replaceAll(/42:0{64}/g, release.chain),
  );
  const pod = podsIn(manifests).find(({ of }) => of.startsWith(kind));
  const container = [...(pod?.spec.initContainers ?? []), ...(pod?.spec.containers ?? [])].find(
    (candidate) => candidate.name === "lockkeeper",
  );
  if (pod === undefined || container === undefined) throw new Error(`${name} has no pod of ours`);
  const { args, variables } = startOf(container, pod, manifests);
  const work = mkdtempSync(join(folder, "pod-"));
  chmodSync(work, 0o755);
  // The kubelet makes this file and lets everybody write into it.
  const message = join(work, "message");
  writeFileSync(message, "");
  chmodSync(message, 0o666);
  const volumes = [
    `${message}:/dev/termination-log`,
    `${join(folder, "app")}:/app:ro`,
    ...container.volumeMounts.map((mount) => {
      const volume = pod.spec.volumes.find((candidate) => candidate.name === mount.name);
      const at = join(work, mount.name);
      mkdirSync(at);
      const content = contentOf(
        manifests,
        pod.namespace,
        volume?.configMap?.name,
        volume?.secret?.secretName,
      );
      for (const [file, text] of Object.entries(content)) writeFileSync(join(at, file), text);
      return `${at}:${mount.mountPath}${mount.readOnly ? ":ro" : ""}`;
    }),
  ];
  const { endpoint, credentials } = bucket;
  const outside = {
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
    AWS_REGION: "us-east-1",
    LOCKKEEPER_S3_ENDPOINT: endpoint,
    LOCKKEEPER_S3_PATH_STYLE: "true",
  };
  const env = Object.entries({ ...variables, ...outside });
  const engine = ["--cgroup-manager=cgroupfs", "--runtime=runc"];
  const image = "docker.io/library/node:24-bookworm-slim";
  const options = [
    ...confinement(container),
    ...env.map(([variable, value]) => `--env=${variable}=${value}`),
    ...volumes.map((volume) => `--volume=${volume}`),
  ];
  const { program, folder: at } = imageStart();
  const [entry = "", ...first] = program;
  const started = [`--workdir=${at}`, `--entrypoint=${entry}`, image, ...first, ...args];
  const command = [...engine, "run", "--rm", "--network=host", ...options, ...started];
  const storage = { ...process.env, CONTAINERS_STORAGE_CONF: join(folder, "storage.conf") };
  const exit = await run(part("podman"), command, { env: storage }).then(
    () => 0,
    (error: unknown) => (error instanceof Error && "code" in error ? Number(error.code) : -1),
  );
  return { exit, message: readFileSync(message, "utf8") };
}

/** A ConfigMap as it is, but for the key of these tests; a Secret by the role that its name says. */
function contentOf(
  manifests: readonly Manifest[],
  namespace: string,
  configMap: string | undefined,
  secret: string | undefined,
): Readonly<Record<string, string>> {
  if (configMap !== undefined) {
    const data = dataOf(manifests, { kind: "ConfigMap", namespace, name: configMap });
    return { ...data, "release.key.pub": key.publicPem };
  }
  const url = logins[secret === "orders-db-reader" ? "lockkeeper_reader" : "lockkeeper_runner"] ?? "";
  return { url, "tenant-1": url };
}

/** A container's securityContext and limits in podman's words; `RuntimeDefault` is what podman does by itself. */
function confinement({ securityContext, resources }: Container): readonly string[] {
  const { runAsUser, readOnlyRootFilesystem, allowPrivilegeEscalation, capabilities } = securityContext;
  const memory = `${String(resources.limits["memory"]).replace("Mi", "")}m`;
  return [
    `--user=${runAsUser}:${runAsUser}`,
    ...(readOnlyRootFilesystem === true ? ["--read-only", "--read-only-tmpfs=false"] : []),
    ...(allowPrivilegeEscalation === false ? ["--security-opt=no-new-privileges"] : []),
    ...(capabilities?.drop ?? []).map((name) => `--cap-drop=${name.toLowerCase()}`),
    `--memory=${memory}`,
    `--memory-swap=${memory}`,
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=4096:4096",
  ];
}

/** What infra/kubernetes.md says that one sees. */
function told(name: string): string {
  const page = readFileSync(join(root, "infra/kubernetes.md"), "utf8");
  const block = new RegExp(`^\`\`\`text see=${name}\\n([\\s\\S]*?)\\n^\`\`\`$`, "m").exec(page)?.[1];
  if (block === undefined) throw new Error(`infra/kubernetes.md has no block see=${name}`);
  return block;
}

/** A message without what is another one each time. */
function shown(message: string): string {
  return message
    .trimEnd()
    .replaceAll(/\b(sha256|\d+):[0-9a-f]{64}/g, "$1:…")
    .replace(/\b01[0-9A-Z]{24}$/, "01…")
    .replace(/ done, [^)]+\)/, " done, … s)");
}

describe("our manifests' containers, run by podman as a kubelet would", () => {
  test("init brings the database to the release for one of three replicas, wait sees it with the reader's login, and a broken release ends the Job for good", async () => {
    const first = await publish(good);
    const replicas = await Promise.all([1, 2, 3].map(() => start("init", first)));
    expect(replicas.map(({ exit }) => exit)).toEqual([0, 0, 0]);
    // as infra/kubernetes.md shows them
    const [did, found] = told("init").split("\n");
    expect(replicas.map(({ message }) => shown(message)).toSorted()).toEqual([did, found, found]);

    const waited = await start("wait", first);
    expect([waited.exit, shown(waited.message)]).toEqual([0, told("wait")]);

    expect(await start("indexed-job", first)).toEqual({
      exit: 0,
      message: expect.stringMatching(/^lockkeeper OK tenant-1 000001 /),
    });
    expect(await start("sweep", first, "CronJob")).toMatchObject({ exit: 0 });

    const second = await publish(bad);
    const failed = await start("job", second);
    expect(told("job")).toContain(`Message:      ${shown(failed.message)}\n`);
    expect(told("job")).toMatch(new RegExp(`Exit Code: +${failed.exit}$`));
    const again = await start("job", second);
    expect(again).toEqual({ exit: 20, message: expect.stringMatching(/code=FAILED_BEFORE exit=20/) });
    expect(finalExits).toEqual(expect.arrayContaining([failed.exit, again.exit]));
    for (const { message } of [failed, again]) expect(message).not.toContain("sesame");

    // The pods of the release before start all the same.
    expect(await start("init", first)).toMatchObject({ exit: 0 });
    expect(await start("wait", first)).toMatchObject({ exit: 0 });
    expect(await database.query("select id from orders")).toEqual([]);
  }, 240_000);
});
