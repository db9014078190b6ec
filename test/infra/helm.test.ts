import { execFile } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { needs, part } from "../support/parts.ts";
import { customKinds, customProblems } from "./custom-resources.ts";
import { manifestsIn, podsIn, root, schemaProblems, type Manifest } from "./manifests.ts";
import { failurePolicyProblems, securityProblems, startProblems } from "./pod-rules.ts";

needs("helm", "kubernetes-validate");

const run = promisify(execFile);
const chart = join(root, "infra/helm/lockkeeper");
const read = (file: string): string => readFileSync(join(chart, file), "utf8");

/** Values that the chart is made from below, each a way of using it. */
const sets = readdirSync(join(chart, "ci"))
  .map((file) => file.replace(/-values\.yaml$/, ""))
  .toSorted();
const rendered = new Map<string, { readonly text: string; readonly manifests: readonly Manifest[] }>();

let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "lockkeeper-helm-"));
  for (const set of sets) {
    const text = await template(chart, ["--values", valuesOf(set)]);
    rendered.set(set, { text, manifests: manifestsIn(text) });
  }
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function valuesOf(set: string): string {
  return join(chart, "ci", `${set}-values.yaml`);
}

/** With homes of its own, so that nothing of whoever runs the tests is read. */
async function helm(args: readonly string[]): Promise<string> {
  const homes = { HELM_CACHE_HOME: folder, HELM_CONFIG_HOME: folder, HELM_DATA_HOME: folder };
  const { stdout } = await run(part("helm"), args, {
    env: { ...process.env, ...homes, KUBECONFIG: join(folder, "none") },
  });
  return stdout;
}

function template(from: string, args: readonly string[]): Promise<string> {
  return helm(["template", "orders", from, "--namespace=orders", "--kube-version=1.33", ...args]);
}

/** What helm says when it refuses values. */
async function refusal(args: readonly string[], set = "hook"): Promise<string> {
  return template(chart, ["--values", valuesOf(set), ...args]).then(
    () => "taken",
    (error: unknown) => v.parse(v.object({ stderr: v.string() }), error).stderr,
  );
}

/** Secrets and ConfigMaps that the chart says are there before it. */
const existing = manifestsIn(
  `${["orders-db-runner", "orders-db-reader", "billing-db-runner"]
    .map(
      (name) => `{apiVersion: v1, kind: Secret, metadata: {name: ${name}}, stringData: {url: "postgres://"}}`,
    )
    .join("\n---\n")}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: authority}, data: {}}`,
);

function manifestsOf(set: string): readonly Manifest[] {
  return rendered.get(set)?.manifests ?? [];
}

const isHook = ({ metadata }: Manifest): boolean => "helm.sh/hook" in metadata.annotations;
const weightOf = ({ metadata }: Manifest): number => Number(metadata.annotations["helm.sh/hook-weight"]);

describe("infra/helm/lockkeeper", () => {
  test.for(sets)("%s: helm's own linter has nothing to say", async (set) => {
    const args = ["lint", chart, "--strict", "--quiet", "--kube-version=1.33", "--values", valuesOf(set)];
    expect(await helm(args)).toBe("");
  });

  test.for(sets)("%s: makes the objects that are written down in golden/", async (set) => {
    await expect(rendered.get(set)?.text).toMatchFileSnapshot(`golden/helm-${set}.yaml`);
  });

  test("every object is one that Kubernetes 1.32 and 1.37 know, without a field too many", async () => {
    const all = [...rendered].map(([set, { text }]) => `# ${set}\n${text}`).join("\n---\n");
    expect(await schemaProblems(all)).toEqual([]);
    const custom = sets
      .flatMap(manifestsOf)
      .filter(({ apiVersion, kind }) => customKinds.includes(`${apiVersion} ${kind}`));
    expect(custom.map(({ kind }) => kind)).toEqual(["ServiceMonitor"]);
    expect(custom.flatMap(customProblems)).toEqual([]);
  });

  test.for(sets)("%s: pods keep to the rules, and are started with what exists", async (set) => {
    const manifests = [...manifestsOf(set), ...existing];
    const pods = podsIn(manifests);
    expect(pods.length).toBeGreaterThan(0);
    const problems = await Promise.all(
      pods.map(async (pod) => [
        ...securityProblems(pod).filter((problem) => !problem.startsWith("cloud-sql-proxy: asks")),
        ...failurePolicyProblems(pod),
        ...(await startProblems(pod, manifests)),
      ]),
    );
    expect(problems.flat()).toEqual([]);
  });

  test("whatever a hook's Job reads is a hook before it, and none of them is deleted before it could be looked at", () => {
    for (const set of ["hook", "argocd"]) {
      const hooks = manifestsOf(set).filter(isHook);
      const jobs = hooks.filter(({ kind }) => kind === "Job");
      expect(jobs.length, set).toBe(set === "hook" ? 1 : 2);
      for (const job of jobs) {
        const [pod] = podsIn([job]);
        const needed = [
          ["ServiceAccount", pod?.spec.serviceAccountName],
          ...(pod?.spec.volumes ?? []).flatMap(({ configMap }) =>
            configMap === undefined ? [] : [["ConfigMap", configMap.name]],
          ),
        ];
        expect(needed.length).toBe(2);
        for (const [kind, name] of needed) {
          const found = hooks.find((hook) => hook.kind === kind && hook.metadata.name === name);
          expect(found === undefined ? undefined : weightOf(found) < weightOf(job), `${kind} ${name}`).toBe(
            true,
          );
        }
      }
      for (const { metadata } of hooks) {
        expect(metadata.annotations["helm.sh/hook"]).toBe("pre-install,pre-upgrade");
        expect(metadata.annotations["helm.sh/hook-delete-policy"]).toBe("before-hook-creation");
      }
    }
  });

  test("targets are migrated in the order in which they are listed", () => {
    const jobs = manifestsOf("argocd").filter(({ kind }) => kind === "Job");
    const inOrder = jobs.toSorted((a, b) => weightOf(a) - weightOf(b)).map(({ metadata }) => metadata.name);
    expect(inOrder).toEqual([
      "orders-lockkeeper-migrate-billing-prod",
      "orders-lockkeeper-migrate-orders-prod",
    ]);
  });

  test("for Argo CD every hook is told in its own words as well", () => {
    for (const hook of manifestsOf("argocd").filter(isHook)) {
      expect(hook.metadata.annotations).toMatchObject({
        "argocd.argoproj.io/hook": "PreSync",
        "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
        "argocd.argoproj.io/sync-wave": String(weightOf(hook)),
      });
    }
    expect(rendered.get("hook")?.text).not.toContain("argocd");
  });

  test("Jobs that are no hooks are others as soon as they would run anything else", async () => {
    const nameWith = async (...args: readonly string[]): Promise<string | undefined> => {
      const text = await template(chart, ["--values", valuesOf("google"), ...args]);
      return manifestsIn(text).find(({ kind }) => kind === "Job")?.metadata.name;
    };
    const before = await nameWith();
    expect(await nameWith()).toBe(before);
    expect(await nameWith(`--set=migrate.targets[0].release=sha256:${"1".repeat(64)}`)).not.toBe(before);
    expect(await nameWith("--set=migrate.deadline=19m")).not.toBe(before);
    expect(await nameWith("--set=server.replicas=5")).toBe(before);
  });

  test("another configuration rolls the server", async () => {
    const sumWith = async (...args: readonly string[]): Promise<string | undefined> =>
      /checksum\/config: (\w{64})/.exec(
        await template(chart, ["--values", valuesOf("server"), ...args]),
      )?.[1];
    expect(await sumWith()).not.toBe(await sumWith("--set=config.targets.orders-prod.stream=other"));
  });

  test.for([
    ["--set=nonsense=1", "additional properties 'nonsense' not allowed"],
    ["--set=migrate.deadlin=5m", "additional properties 'deadlin' not allowed"],
    ["--set=migrate.deadline=soon", "at '/migrate/deadline'"],
    ["--set=migrate.targets[0].release=latest", "at '/migrate/targets/0/release'"],
    ["--set=migrate.targets[0].release=null", "at '/migrate/targets/0/release'"],
    ["--set=image.digest=abc", "at '/image/digest'"],
    ["--set=server.replicas=-1", "at '/server/replicas'"],
    ["--set=sweep.schedule=hourly", "at '/sweep/schedule'"],
    ["--set=metrics.port=99999", "at '/metrics/port'"],
    ["--set=config.version=2", "at '/config/version'"],
    ["--set=secrets.Orders_DB=x", "'Orders_DB' does not match pattern"],
    ["--set=files.key=-----BEGIN PRIVATE KEY-----", "at '/files/key'"],
    ["--set=networkPolicy.databaseCidrs={anywhere}", "at '/networkPolicy/databaseCidrs/0'"],
    ["--set=sidecars[0].name=proxy", "at '/sidecars/0'"],
  ] as const)("the schema refuses %s", async ([argument, words]) => {
    expect(await refusal([argument])).toContain(words);
  });

  test.for([
    [
      ["--set=migrate.targets[0].name=order-prod"],
      '"order-prod" is not in config.targets; there are orders-prod',
    ],
    [["--set-json=config={}"], "config.targets is empty"],
    [["--set-json=config=null"], "config.targets is empty"],
    [["--set=server.enabled=true"], "policy is missing"],
    [["--set=server.enabled=true", '--set-json=policy={"rules":[]}'], "config.publicUrl is missing"],
    [["--set=secrets=null"], "add secrets.orders-db with the name of the Secret"],
  ] as const)("values that do not fit together are refused with what to do: %j", async ([args, words]) => {
    expect(await refusal(args)).toContain(words);
  });

  test("every value is in the schema, and every one of the schema has a default", () => {
    const defaults: unknown = parse(read("values.yaml"));
    const schema: unknown = JSON.parse(read("values.schema.json"));
    expect(pathsOfSchema(schema).filter((path) => !["global", "enabled"].includes(path))).toEqual(
      pathsOfValues(defaults, schema),
    );
  });

  test("an application's chart has its pods wait with one line", async () => {
    const parent = join(folder, "orders");
    mkdirSync(join(parent, "templates"), { recursive: true });
    cpSync(chart, join(parent, "charts/lockkeeper"), { recursive: true });
    writeFileSync(join(parent, "Chart.yaml"), "{apiVersion: v2, name: orders, version: 1.0.0}\n");
    writeFileSync(join(parent, "templates/deployment.yaml"), documented("deployment.yaml"));
    const values = `lockkeeper:\n${readFileSync(valuesOf("hook"), "utf8").replaceAll(/^/gm, "  ")}\n`;
    writeFileSync(join(parent, "values.yaml"), values);
    const text = await template(parent, [`--set=chain=42:${"0".repeat(64)}`]);
    expect(await schemaProblems(text)).toEqual([]);
    const manifests = [...manifestsIn(text), ...existing];
    const pod = podsIn(manifests).find(({ of }) => of === "Deployment orders");
    expect(pod?.spec.initContainers.map(({ args }) => args)).toEqual([
      ["wait", "--target", "orders-prod", "--expect-chain", `42:${"0".repeat(64)}`, "--timeout", "10m"],
    ]);
    expect(pod?.spec.volumes.flatMap(({ secret }) => secret?.secretName ?? [])).toEqual(["orders-db-reader"]);
    expect(
      pod === undefined ? [] : [...securityProblems(pod), ...(await startProblems(pod, manifests))],
    ).toEqual([]);
  });

  test("the notes tell how to see what a Job did", async () => {
    const copy = join(folder, "notes");
    cpSync(chart, copy, { recursive: true });
    const shown = '{kind: Notes, text: {{ include (print .Template.BasePath "/NOTES.txt") . | toJson }}}';
    writeFileSync(join(copy, "templates/notes.yaml"), shown);
    const args = ["--values", valuesOf("google"), "--show-only=templates/notes.yaml"];
    const notes = v.parse(v.object({ text: v.string() }), parse(await template(copy, args))).text;
    expect(notes).toContain("orders-prod  sha256:0000");
    expect(notes).toContain("http://migrations.orders.svc:8443, its callers name it https://migrate.example");
    expect(notes).toContain("job --from=cronjob/migrations-sweep");
    expect(notes).not.toMatch(/<no value>|%!/);
  });
});

/** A block of infra/kubernetes.md by its file's name. */
function documented(file: string): string {
  const text = readFileSync(join(root, "infra/kubernetes.md"), "utf8");
  const found = new RegExp(`^\`\`\`yaml chart=${file}\\n([\\s\\S]*?)^\`\`\`$`, "m").exec(text)?.[1];
  if (found === undefined) throw new Error(`infra/kubernetes.md has no block chart=${file}`);
  return found;
}

const withProperties = v.looseObject({ properties: v.record(v.string(), v.unknown()) });

/** Keys that a schema names, down to where it leaves them to the user. */
function pathsOfSchema(schema: unknown, before = ""): readonly string[] {
  if (!v.is(withProperties, schema) || schema["additionalProperties"] !== false) return [before];
  return Object.entries(schema.properties)
    .flatMap(([key, value]) => pathsOfSchema(value, before === "" ? key : `${before}.${key}`))
    .filter((path) => !/\.resources\./.test(path))
    .toSorted();
}

/** Keys of the values, as deep as the schema names them. */
function pathsOfValues(values: unknown, schema: unknown, before = ""): readonly string[] {
  if (!v.is(withProperties, schema) || schema["additionalProperties"] !== false) return [before];
  return Object.entries(v.parse(v.record(v.string(), v.unknown()), values))
    .flatMap(([key, value]) =>
      pathsOfValues(value, schema.properties[key], before === "" ? key : `${before}.${key}`),
    )
    .filter((path) => !/\.resources\./.test(path))
    .toSorted();
}
