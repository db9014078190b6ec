import { readFileSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { front, listen } from "../http/front.ts";
import type { Fault } from "../http/front.ts";
import { createWorld, openBarrier, orders, users } from "../http/world.ts";
import type { World } from "../http/world.ts";
import { needs } from "../support/parts.ts";
import { makeKeys, tempFolder } from "../support/release.ts";
import { gitlabClaims, infra, platformWorld, programFolder, runScript } from "./pipeline.ts";
import type { Said } from "./pipeline.ts";

needs("curl", "jq");

const page = readFileSync(join(infra, "pipelines.md"), "utf8");
const bad = {
  "1_bad.up.sql": "select nmae from pg_class;",
  "1_bad.down.sql": "select 1;",
} as const;

/** A fenced block of the page. */
function block(words: string): string {
  const found = new RegExp(`^\`\`\`${words}\\n([\\s\\S]*?)^\`\`\`$`, "m").exec(page)?.[1];
  if (found === undefined) throw new Error(`the page has no block ${words}`);
  return found;
}

/** A folder with the program on its PATH, as in the image. */
async function imageFolder(): Promise<{ readonly folder: string; readonly path: string }> {
  const folder = await tempFolder();
  onTestFinished(async () => folder[Symbol.asyncDispose]());
  return { folder: folder.path, path: `${await programFolder(folder.path)}:${process.env["PATH"] ?? ""}` };
}

/** Lines of a job, as a runner gives them to `sh` in the image. */
async function sh(lines: readonly string[], variables: Readonly<Record<string, string>>): Promise<Said> {
  const { folder, path } = await imageFolder();
  return runScript(lines.join("\n"), {
    folder,
    variables: { ...variables, PATH: path },
    shell: ["sh", "-e"],
  });
}

describe("the component for GitLab", () => {
  const [spec, job] = parseAllDocuments(
    readFileSync(join(infra, "gitlab/templates/lockkeeper.yml"), "utf8"),
  ).map((document) => document.toJS() as unknown);
  const { inputs } = (
    spec as {
      spec: {
        inputs: Readonly<Record<string, { default?: string; options?: readonly string[]; regex?: string }>>;
      };
    }
  ).spec;

  interface Job {
    readonly stage: string;
    readonly image: { readonly name: string; readonly entrypoint: readonly string[] };
    readonly environment: { readonly name: string };
    readonly id_tokens: { readonly LOCKKEEPER_TOKEN: { readonly aud: string } };
    readonly variables: Readonly<Record<string, string>>;
    readonly script: readonly string[];
  }

  /** The job as GitLab makes it of the component and its inputs. */
  function jobOf(given: Readonly<Record<string, string>>): Job {
    const filled = JSON.stringify(job).replace(/\$\[\[ inputs\.([a-z-]+) \]\]/g, (_, name: string) => {
      const input = inputs[name];
      if (input === undefined) throw new Error(`the component has no input ${name}`);
      const value = given[name] ?? input.default;
      if (value === undefined) throw new Error(`the input ${name} is missing`);
      return JSON.stringify(value).slice(1, -1);
    });
    const jobs = JSON.parse(filled) as Record<string, Job>;
    const [only, ...more] = Object.values(jobs);
    if (only === undefined || more.length > 0) throw new Error("the component has not one job");
    return only;
  }

  test("declares each input that it uses, and uses each that it declares", () => {
    const used = [...JSON.stringify(job).matchAll(/\$\[\[ inputs\.([a-z-]+) \]\]/g)].map(([, name]) => name);
    expect(new Set(used)).toEqual(new Set(Object.keys(inputs)));
    for (const { default: value = "", options } of Object.values(inputs))
      if (options !== undefined) expect(options).toContain(value);
  });

  test("is used by the page with inputs that it has, and with all that it needs", () => {
    const chain = parse(block("yaml gitlab")) as {
      readonly include: readonly { readonly inputs: Readonly<Record<string, string>> }[];
    };
    const given = chain.include[0]?.inputs ?? {};
    for (const name of Object.keys(given)) expect(Object.keys(inputs)).toContain(name);
    expect(jobOf(given)).toMatchObject({
      environment: { name: "production" },
      image: { entrypoint: [""] },
      variables: { LOCKKEEPER_TARGET: "orders-prod", LOCKKEEPER_RELEASE: "$RELEASE" },
    });
  });

  test("applies a release as the job that its token says it is, and fails with the run's exit code", async () => {
    const { world, issuer } = await platformWorld("gitlab");
    const { url } = await front(world);
    const act = async (release: string, claims: Readonly<Record<string, unknown>> = {}): Promise<Said> => {
      const made = jobOf({ url, target: "orders", environment: "production", release });
      const token = await issuer.token({ ...gitlabClaims, aud: "https://migrate.test", ...claims });
      const predefined = { GITLAB_CI: "true", CI_COMMIT_SHA: "3f2a9b1", LOCKKEEPER_TOKEN: token };
      return sh(made.script, { ...made.variables, ...predefined });
    };
    const done = await act(await world.bucket.publish({ ...users, ...orders }));
    expect(done).toMatchObject({ code: 0, text: expect.stringContaining("2_orders.up.sql applied in") });
    const failing = await world.bucket.publish({ ...users, ...orders, ...renumbered(bad, 3) });
    const failed = await act(failing);
    expect(failed).toMatchObject({ code: 21, text: expect.stringContaining("3_bad.up.sql:1:8") });
    expect((await act(failing, { ref_protected: "false" })).code).toBe(23);
    expect((await act('$(touch pwned)"; touch pwned')).code).toBe(2);
  });
});

describe("the pipelines for Codefresh", () => {
  interface Pipeline {
    readonly steps: Readonly<
      Record<
        string,
        {
          readonly type: string;
          readonly arguments?: Readonly<Record<string, string>>;
          readonly environment?: readonly string[];
          readonly commands?: readonly string[];
        }
      >
    >;
  }

  /** Runs the freestyle steps as Codefresh does: its variables filled in, commands by sh in the image. */
  async function build(
    file: string,
    variables: Readonly<Record<string, string>>,
    own: Readonly<Record<string, string>>,
  ): Promise<Said> {
    const { steps } = parse(readFileSync(join(infra, "codefresh", file), "utf8")) as Pipeline;
    const step = steps["migrate"];
    expect(step?.type).toBe("freestyle");
    const pairs = (step?.environment ?? []).map((line) => {
      const filled = line.replace(/\$\{\{([A-Z_]+)\}\}/g, (_, name: string) => variables[name] ?? "");
      return [filled.slice(0, filled.indexOf("=")), filled.slice(filled.indexOf("=") + 1)] as const;
    });
    const env = { ...Object.fromEntries(pairs), LOCKKEEPER_TARGET: "orders", ...own };
    return sh(step?.commands ?? [], env);
  }

  test("asks for a token when it needs one, or uses the marketplace's step", async () => {
    const world = await createWorld();
    const { url } = await front(world);
    const LOCKKEEPER_RELEASE = await world.bucket.publish({ ...users, ...orders });
    const platform = await listen((request, response) => {
      const { searchParams } = new URL(request.url ?? "/", "http://localhost");
      void world
        .token({ aud: searchParams.get("audience") })
        .then((token) => response.end(JSON.stringify({ id_token: token })));
    });
    const known = { LOCKKEEPER_RELEASE };
    const own = {
      LOCKKEEPER_URL: url,
      LOCKKEEPER_AUDIENCE: "https://migrate.test",
      CF_BUILD_ID: "1",
      CF_REVISION: "3f2a9b1",
      CF_BUILD_URL: "https://g.codefresh.io/build/1",
    };
    const asking = await build("codefresh.yml", known, {
      ...own,
      CF_OIDC_REQUEST_URL: platform,
      CF_OIDC_REQUEST_TOKEN: "x",
    });
    expect(asking).toMatchObject({ code: 0, text: expect.stringContaining("2_orders.up.sql applied") });
    const [run] = (await world.send("GET", "/v1/runs?target=orders")).body.runs;
    expect(run.labels).toEqual({ commit: "3f2a9b1", pipelineUrl: "https://g.codefresh.io/build/1" });
    const given = await build("with-step.yml", { ...known, ID_TOKEN: await world.token() }, own);
    expect(given).toMatchObject({ code: 0, text: expect.stringMatching(/status +succeeded, noop/) });
  });
});

describe("the Jenkinsfile", () => {
  const jenkinsfile = readFileSync(join(infra, "jenkins/Jenkinsfile"), "utf8");

  test("runs the program with what Jenkins binds", async () => {
    const world = await createWorld();
    const { url } = await front(world);
    const script = /sh '''\n([\s\S]*?)'''/.exec(jenkinsfile)?.[1] ?? "";
    const environment = /environment \{\n([\s\S]*?)\n {2}\}/.exec(jenkinsfile)?.[1] ?? "";
    const variables = Object.fromEntries(
      [...environment.matchAll(/(\w+) = '([^']*)'/g)].map(([, name = "", value = ""]) => [name, value]),
    );
    expect(variables).toMatchObject({ LOCKKEEPER_TARGET: "orders-prod" });
    const bound = async (RELEASE: string): Promise<Said> =>
      sh([script], {
        ...variables,
        LOCKKEEPER_URL: url,
        LOCKKEEPER_TARGET: "orders",
        LOCKKEEPER_TOKEN: await world.token(),
        RELEASE,
        JENKINS_URL: "https://jenkins.example/",
        BUILD_URL: "https://jenkins.example/job/orders/1/",
      });
    expect(await bound(await world.bucket.publish(users))).toMatchObject({ code: 0 });
    const [run] = (await world.send("GET", "/v1/runs?target=orders")).body.runs;
    expect(run.labels).toEqual({ pipelineUrl: "https://jenkins.example/job/orders/1/" });
    expect((await bound('"; touch pwned; echo "')).code).toBe(2);
  });
});

describe("the page's own scripts", () => {
  async function given(world: World, release: string, fault?: Fault) {
    const { url } = await front(world, fault);
    return { LOCKKEEPER_URL: url, TOKEN: await world.token(), RELEASE: release };
  }

  test("the one request answers as it stands beside it", async () => {
    const world = await createWorld();
    const release = await world.bucket.publish({ ...users, ...orders });
    const asked = await sh([block("sh run=begin")], await given(world, release));
    expect(asked.code).toBe(0);
    const { id, ...told } = JSON.parse(block("json answer")) as Record<string, unknown>;
    const answer = JSON.parse(asked.text) as Record<string, unknown>;
    expect(answer).toMatchObject(told);
    expect(answer["id"]).toMatch(new RegExp(`^${String(id).split(".")[0] ?? ""}\\.01[0-9A-Z]{24}$`));
  });

  test("the gate ends with the run, and fails a job where the run fails or is refused", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const asked: string[] = [];
    const impatient: Fault = (request) => {
      request.headers["prefer"] = "wait=0";
      asked.push(request.url ?? "");
      return false;
    };
    const passing = sh([block("sh run=gate")], await given(world, release, impatient));
    while (asked.length < 3) await pause(20);
    await barrier.release();
    expect((await passing).code).toBe(0);
    expect((await world.send("GET", "/v1/runs?target=orders")).body.runs).toHaveLength(1);
    const failing = await world.bucket.publish({ ...barrier.migration, ...renumbered(bad, 2) });
    const failed = await sh([block("sh run=gate")], await given(world, failing));
    expect(failed).toMatchObject({ code: 1, text: expect.stringContaining("MIGRATION_FAILED") });
    const unknown = await sh([block("sh run=gate")], await given(world, `sha256:${"0".repeat(64)}`));
    expect(unknown).toMatchObject({ code: 1, text: expect.stringContaining("RELEASE_NOT_FOUND") });
  });

  test.for(["script", "program"])("the %s follows a run with a token from a file", async (name) => {
    const world = await createWorld();
    const release = await world.bucket.publish({ ...users, ...orders });
    const { TOKEN, ...variables } = await given(world, release);
    const { folder, path } = await imageFolder();
    await writeFile(join(folder, "token"), `${TOKEN}\n`);
    const text = block(`sh run=${name}`).replace("infra/", `${infra}/`);
    const said = await runScript(text, {
      folder,
      variables: { ...variables, PATH: path },
      shell: ["sh", "-e"],
    });
    expect(said.code).toBe(0);
    expect((await world.database.query("select count(*)::int as n from orders"))[0]).toEqual({ n: 0 });
  });

  test("both chains publish, sign, and hand the digest on", async () => {
    const { key } = makeKeys();
    const github = parse(block("yaml workflow")) as {
      readonly jobs: {
        readonly publish: { readonly steps: readonly { readonly id?: string; readonly run?: string }[] };
      };
    };
    const gitlab = parse(block("yaml gitlab")) as {
      readonly publish: { readonly script: readonly string[] };
    };
    const scripts = [
      github.jobs.publish.steps.find(({ id }) => id === "publish")?.run ?? "",
      gitlab.publish.script.join("\n"),
    ];
    for (const script of scripts) {
      const { folder, path } = await imageFolder();
      await mkdir(join(folder, "migrations"));
      for (const [name, text] of Object.entries(users))
        await writeFile(join(folder, "migrations", name), text);
      await writeFile(join(folder, "key"), key.privatePem, { mode: 0o600 });
      await writeFile(join(folder, "key.pub"), key.publicPem);
      await writeFile(join(folder, "trust.json"), JSON.stringify({ keys: ["key.pub"], threshold: 1 }));
      const variables = {
        PATH: path,
        BUCKET: "./bucket",
        KEY: "key",
        GITHUB_OUTPUT: join(folder, "release.env"),
      };
      const said = await runScript(script, { folder, variables, shell: ["sh", "-e"] });
      expect(said, said.text).toMatchObject({ code: 0 });
      const published = JSON.parse(await readFile(join(folder, "published.json"), "utf8")) as Record<
        string,
        unknown
      >;
      const handed = await readFile(join(folder, "release.env"), "utf8");
      expect(handed).toMatch(/^(?:release|RELEASE)=sha256:[0-9a-f]{64}\n$/);
      expect(handed.trim().split("=")[1]).toBe(published["digest"]);
      const head = JSON.parse(await readFile(join(folder, "bucket/head.json"), "utf8")) as Record<
        string,
        unknown
      >;
      expect(JSON.stringify(head)).toContain(String(published["digest"]));
    }
  });
});

/** The same migration, later in the sequence. */
function renumbered(
  files: Readonly<Record<string, string>>,
  version: number,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(files).map(([name, text]) => [name.replace(/^\d+/, String(version)), text]),
  );
}
