import { accessSync, constants, existsSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { aroundAll, beforeEach, type RunnerTestSuite, type TestContext, TestRunner } from "vitest";

/** One real server or tool that tests use and npm alone does not install. */
interface Part {
  /** environment variable that names it: a path, or the URL of one that runs already */
  readonly variable: string;
  /** where `npm run parts` puts it, under `.parts` */
  readonly installed?: string;
  /** name on PATH, and folders besides PATH where Debian keeps it */
  readonly program?: string;
  readonly folders?: readonly string[];
  /** how a person gets it */
  readonly how: string;
}

const parts = {
  versitygw: {
    variable: "LOCKKEEPER_TEST_VERSITYGW",
    installed: "bin/versitygw",
    program: "versitygw",
    how: "npm run parts; needs Go",
  },
  "fake-gcs-server": {
    variable: "LOCKKEEPER_TEST_FAKE_GCS_SERVER",
    installed: "bin/fake-gcs-server",
    program: "fake-gcs-server",
    how: "npm run parts; needs Go",
  },
  // Google's own, a part of its Cloud SDK
  "pubsub-emulator": {
    variable: "PUBSUB_EMULATOR_JAR",
    installed: "pubsub-emulator.jar",
    how: "gcloud components install pubsub-emulator, then npm run parts",
  },
  java: { variable: "LOCKKEEPER_TEST_JAVA", program: "java", how: "your system's Java, 17 or newer" },
  localstack: {
    variable: "LOCKKEEPER_TEST_LOCALSTACK",
    installed: "localstack/bin/python",
    how: "npm run parts; needs Python 3.11",
  },
  ministack: {
    variable: "LOCKKEEPER_TEST_MINISTACK",
    installed: "ministack/bin/ministack",
    how: "npm run parts; needs Python 3.11",
  },
  mongodb: {
    // a URL: tests that make no demands on their server use it in place of SecantusDB
    variable: "LOCKKEEPER_TEST_MONGODB",
    installed: "secantusdb/bin/secantusd-py",
    how: "npm run parts; needs Python 3.11",
  },
  secantusdb: {
    variable: "LOCKKEEPER_TEST_SECANTUSDB",
    installed: "secantusdb/bin/secantusd-py",
    how: "npm run parts; needs Python 3.11",
  },
  "golang-migrate": {
    variable: "LOCKKEEPER_TEST_GOLANG_MIGRATE",
    installed: "peers/golang-migrate",
    program: "migrate",
    how: "npm run parts; needs Go",
  },
  goose: {
    variable: "LOCKKEEPER_TEST_GOOSE",
    installed: "peers/goose",
    program: "goose",
    how: "npm run parts; needs Go",
  },
  // Ours, over Atlas's own library: Atlas's command line cannot be installed (parts/atlas/main.go).
  atlas: {
    variable: "LOCKKEEPER_TEST_ATLAS",
    installed: "peers/atlas",
    how: "npm run parts; needs Go",
  },
  flyway: {
    variable: "LOCKKEEPER_TEST_FLYWAY",
    installed: "peers/flyway/flyway",
    program: "flyway",
    how: "npm run parts; needs Maven and Java 17",
  },
  dbmate: {
    variable: "LOCKKEEPER_TEST_DBMATE",
    installed: `peers/npm/node_modules/@dbmate/${process.platform}-${process.arch}/bin/dbmate`,
    program: "dbmate",
    how: "npm run parts",
  },
  "node-pg-migrate": {
    variable: "LOCKKEEPER_TEST_NODE_PG_MIGRATE",
    installed: "peers/npm/node_modules/.bin/node-pg-migrate",
    program: "node-pg-migrate",
    how: "npm run parts",
  },
  "migrate-mongo": {
    variable: "LOCKKEEPER_TEST_MIGRATE_MONGO",
    installed: "peers/npm/node_modules/.bin/migrate-mongo",
    program: "migrate-mongo",
    how: "npm run parts",
  },
  // A library: a project writes the command line itself, and parts/npm/umzug.mjs is one.
  umzug: { variable: "LOCKKEEPER_TEST_UMZUG", installed: "peers/npm/umzug.mjs", how: "npm run parts" },
  // AWS's tools for serverless applications, with its emulator of Lambda's runtime inside
  sam: {
    variable: "LOCKKEEPER_TEST_SAM",
    installed: "sam/bin/sam",
    how: "npm run parts; needs Python 3.11",
  },
  "lambda-ric": {
    // a folder: the npm package, compiled
    variable: "LOCKKEEPER_TEST_LAMBDA_RIC",
    installed: "lambda-ric/node_modules/aws-lambda-ric",
    how: "npm run parts; needs g++, make and cmake",
  },
  pgbouncer: {
    variable: "LOCKKEEPER_TEST_PGBOUNCER",
    program: "pgbouncer",
    folders: ["/usr/sbin"],
    how: "npm run parts as root on Debian, or your system's package",
  },
  psql: {
    variable: "LOCKKEEPER_TEST_PSQL",
    program: "psql",
    how: "your system's PostgreSQL client package",
  },
  pg_dump: {
    variable: "LOCKKEEPER_TEST_PG_DUMP",
    program: "pg_dump",
    folders: ["/usr/lib/postgresql/15/bin"],
    how: "your system's PostgreSQL client package, version 15",
  },
  openssl: { variable: "LOCKKEEPER_TEST_OPENSSL", program: "openssl", how: "your system's openssl package" },
  cosign: {
    variable: "LOCKKEEPER_TEST_COSIGN",
    installed: "bin/cosign",
    program: "cosign",
    how: "npm run parts; needs Go",
  },
  actionlint: {
    variable: "LOCKKEEPER_TEST_ACTIONLINT",
    installed: "bin/actionlint",
    program: "actionlint",
    how: "npm run parts; needs Go",
  },
  shellcheck: {
    variable: "LOCKKEEPER_TEST_SHELLCHECK",
    program: "shellcheck",
    how: "npm run parts as root on Debian, or your system's package",
  },
  jq: { variable: "LOCKKEEPER_TEST_JQ", program: "jq", how: "your system's jq package" },
  curl: { variable: "LOCKKEEPER_TEST_CURL", program: "curl", how: "your system's curl package" },
  wycheproof: {
    // a folder of test vectors
    variable: "LOCKKEEPER_TEST_WYCHEPROOF",
    installed: "wycheproof",
    how: "npm run parts; needs Go",
  },
  helm: {
    variable: "LOCKKEEPER_TEST_HELM",
    installed: "bin/helm",
    program: "helm",
    how: "npm run parts; needs Go",
  },
  "kubernetes-validate": {
    variable: "LOCKKEEPER_TEST_KUBERNETES_VALIDATE",
    installed: "kubernetes-validate/bin/kubernetes-validate",
    program: "kubernetes-validate",
    how: "npm run parts; needs Python 3.11",
  },
  telemetry: {
    // Python with Prometheus' own reader of its text, and OpenTelemetry's own messages
    variable: "LOCKKEEPER_TEST_TELEMETRY",
    installed: "telemetry/bin/python",
    how: "npm run parts; needs Python 3.11",
  },
  "compose-schema": {
    // the JSON schema of compose files
    variable: "LOCKKEEPER_TEST_COMPOSE_SCHEMA",
    installed: "compose-schema.json",
    how: "npm run parts; needs Python 3.11",
  },
  terraform: {
    variable: "LOCKKEEPER_TEST_TERRAFORM",
    program: "terraform",
    how: "your system's terraform, 1.9 or newer",
  },
  kubectl: { variable: "LOCKKEEPER_TEST_KUBECTL", program: "kubectl", how: "your system's kubectl" },
  "kube-apiserver": {
    variable: "LOCKKEEPER_TEST_KUBE_APISERVER",
    installed: "bin/kube-apiserver",
    how: "test/slow/install.sh; needs Go",
  },
  etcd: { variable: "LOCKKEEPER_TEST_ETCD", program: "etcd", how: "test/slow/install.sh as root on Debian" },
  buildah: {
    variable: "LOCKKEEPER_TEST_BUILDAH",
    program: "buildah",
    how: "npm run parts as root on Debian, or your system's package",
  },
  podman: {
    variable: "LOCKKEEPER_TEST_PODMAN",
    program: "podman",
    how: "npm run parts as root on Debian, or your system's package",
  },
  "base-image": {
    variable: "LOCKKEEPER_TEST_BASE_IMAGE",
    installed: "images",
    how: "npm run parts as root on Debian",
  },
} as const satisfies Record<string, Part>;

/** A part's name, for {@link needs} and {@link findPart}. */
export type PartName = keyof typeof parts;

/** What the reporter looks for in a skipped test's note to list it as `not run`. */
export const notRunNote = "needs ";

/** `.parts` of the checkout, or where `LOCKKEEPER_PARTS` says that `npm run parts` put things. */
export const partsFolder =
  process.env["LOCKKEEPER_PARTS"] ??
  path.join(path.dirname(fileURLToPath(import.meta.url)), "..", "..", ".parts");

/** A part's path (or URL, where its variable names one), or `undefined` when it is not here. */
export function findPart(name: PartName): string | undefined {
  const part: Part = parts[name];
  const given = process.env[part.variable];
  if (given !== undefined && given !== "") return given;
  const installed = part.installed === undefined ? undefined : path.join(partsFolder, part.installed);
  if (installed !== undefined && existsSync(installed)) return path.resolve(installed);
  if (part.program === undefined) return undefined;
  for (const folder of [...(process.env["PATH"] ?? "").split(path.delimiter), ...(part.folders ?? [])]) {
    const candidate = path.join(folder, part.program);
    if (folder !== "" && isExecutable(candidate)) return candidate;
  }
  return undefined;
}

/** A part's path or URL, for code that runs only after {@link needs}. */
export function part(name: PartName): string {
  const found = findPart(name);
  if (found === undefined) throw new Error(missing(name));
  return found;
}

/**
 * Ends the running test as *not run*, for what only the machine itself can give; it is listed at the end of the run.
 *
 * @throws Error where `CI` is set: there, everything runs
 */
export function notRun(context: TestContext, what: string): never {
  if (process.env["CI"] !== undefined && process.env["CI"] !== "") throw new Error(`needs ${what}`);
  return context.skip(`${notRunNote}${what}`);
}

/**
 * Says, at the top of a test file or of a `describe`, what its tests cannot do without.
 *
 * Where a part is missing none of them runs, nor their hooks, and each is listed at the end of the run.
 *
 * @throws Error where a part is missing and `CI` is set: there, everything runs
 */
export function needs(...names: readonly PartName[]): void {
  const absent = names.filter((name) => findPart(name) === undefined);
  if (absent.length === 0) return;
  const note = absent.map(missing).join("; ");
  if (process.env["CI"] !== undefined && process.env["CI"] !== "") throw new Error(note);
  aroundAll(async (runSuite, {}, suite) => {
    dropHooks(suite);
    await runSuite();
  });
  beforeEach((context) => context.skip(note));
}

function missing(name: PartName): string {
  return `${notRunNote}${name} (${parts[name].how}; or ${parts[name].variable})`;
}

/** Without this, a `beforeAll` that starts the missing part would run, and fail. */
function dropHooks(suite: Readonly<RunnerTestSuite>): void {
  const hooks = TestRunner.getSuiteHooks(suite);
  hooks.beforeAll.length = 0;
  hooks.afterAll.length = 0;
  for (const child of suite.tasks) if (child.type === "suite") dropHooks(child);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
