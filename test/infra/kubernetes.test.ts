import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { loadConfig } from "../../src/bin/config.ts";
import { openPolicy } from "../../src/bin/open-policy.ts";
import { parsePolicy } from "../../src/http/auth/policy.ts";
import { needs } from "../support/parts.ts";
import {
  containersOf,
  isOurs,
  kustomize,
  manifestsIn,
  podsIn,
  root,
  schemaProblems,
  type Manifest,
  type Pod,
} from "./manifests.ts";
import { customProblems, customKinds } from "./custom-resources.ts";
import {
  failurePolicyProblems,
  finalExits,
  securityProblems,
  startOf,
  startProblems,
  tokenAt,
} from "./pod-rules.ts";

needs("kubectl", "kubernetes-validate");

const infra = join(root, "infra/kubernetes");
const read = (file: string): string => readFileSync(join(infra, file), "utf8");
const everyFile = readdirSync(infra, { recursive: true, encoding: "utf8" }).toSorted();

/** Folders that `kubectl apply -k` takes. */
const folders = everyFile
  .filter((file) => file.endsWith("/kustomization.yaml"))
  .map((file) => file.replace(/\/kustomization\.yaml$/, ""));

/** Files that no kustomization names: applied as they are. */
const singles = [
  "secrets.yaml",
  "argo-rollouts/analysis-templates.yaml",
  "argo-rollouts/rollout.yaml",
  "argocd/application.yaml",
  "external-secrets/external-secret.yaml",
  "flux/kustomizations.yaml",
];

/** By folder or file: what a cluster would get, as text and as objects. */
const rendered = new Map<string, { readonly text: string; readonly manifests: readonly Manifest[] }>();

beforeAll(async () => {
  const made = [
    ...(await Promise.all(
      folders.map(async (folder) => [folder, await kustomize(join(infra, folder))] as const),
    )),
    ...singles.map((file) => [file, read(file)] as const),
  ];
  for (const [name, text] of made) rendered.set(name, { text, manifests: manifestsIn(text) });
});

function manifestsOf(name: string): readonly Manifest[] {
  return rendered.get(name)?.manifests ?? [];
}

/** With the shapes of the Secrets, which are never part of a kustomization. */
function withSecrets(name: string): readonly Manifest[] {
  return [...manifestsOf(name), ...manifestsOf("secrets.yaml")];
}

function podsOf(name: string): readonly Pod[] {
  return podsIn(manifestsOf(name));
}

describe("infra/kubernetes", () => {
  test("every YAML file in it is part of what is checked here", () => {
    const named = folders.flatMap((folder) => {
      const text = read(`${folder}/kustomization.yaml`);
      const beside = everyFile.filter((file) => file.startsWith(`${folder}/`));
      return beside.filter((file) => text.includes(file.slice(folder.length + 1)));
    });
    const checked = new Set([
      ...named,
      ...singles,
      ...folders.map((folder) => `${folder}/kustomization.yaml`),
    ]);
    expect(everyFile.filter((file) => /\.(ya?ml|json)$/.test(file) && !checked.has(file))).toEqual([]);
  });

  test("every object is one that Kubernetes 1.32 and 1.37 know, without a field too many", async () => {
    const all = [...rendered].map(([name, { text }]) => `# ${name}\n${text}`).join("\n---\n");
    expect(await schemaProblems(all)).toEqual([]);
  });

  test("a field that Kubernetes does not know is found", async () => {
    const wrong = (rendered.get("job")?.text ?? "").replace("backoffLimit:", "backofLimit:");
    const problems = await schemaProblems(wrong);
    expect(problems.join("\n")).toMatch(/backofLimit/);
  });

  test("objects of Argo CD, Argo Rollouts, Flux and External Secrets have the shape that their documents give", () => {
    const custom = [...rendered.values()]
      .flatMap(({ manifests }) => manifests)
      .filter(
        ({ apiVersion }) => !/^(v1|apps\/v1|batch\/v1|policy\/v1|networking\.k8s\.io\/v1)$/.test(apiVersion),
      );
    expect(new Set(custom.map(({ apiVersion, kind }) => `${apiVersion} ${kind}`))).toEqual(
      new Set(customKinds.filter((kind) => !kind.endsWith(" ServiceMonitor"))),
    );
    expect(custom.flatMap(customProblems)).toEqual([]);
  });

  test("every pod keeps to the restricted profile, writes nowhere and holds no token for the Kubernetes API", () => {
    const pods = [...rendered.keys()].flatMap(podsOf);
    expect(pods.length).toBeGreaterThan(10);
    expect(pods.flatMap((pod) => securityProblems(pod).map((problem) => `${pod.of}: ${problem}`))).toEqual(
      [],
    );
  });

  test("a pod that may write, or is root, is found", () => {
    const [pod] = podsIn(
      manifestsIn((rendered.get("job")?.text ?? "").replaceAll("readOnlyRootFilesystem: true", "")),
    );
    expect(pod === undefined ? [] : securityProblems(pod)).toEqual(["lockkeeper: has a writable root"]);
  });

  test("Jobs end at once at the exit codes that another try gives again, and at no other", () => {
    expect(finalExits).toEqual([2, 20, 21, 22, 23]);
    const jobs = [...rendered.keys()].flatMap(podsOf).filter(({ job }) => job !== undefined);
    expect(jobs.length).toBeGreaterThan(3);
    expect(jobs.flatMap(failurePolicyProblems)).toEqual([]);
  });

  test("every container of ours is started with a verb, flags, variables, targets and files that exist", async () => {
    const names = [...rendered.keys()];
    const problems = await Promise.all(
      names.flatMap((name) => podsOf(name).map((pod) => startProblems(pod, withSecrets(name)))),
    );
    expect(problems.flat()).toEqual([]);
  });

  test("a flag that the verb does not have is found", async () => {
    const manifests = manifestsIn((rendered.get("init")?.text ?? "").replace("--deadline", "--dedline"));
    const [pod] = podsIn(manifests);
    const problems =
      pod === undefined ? [] : await startProblems(pod, [...manifests, ...withSecrets("init")]);
    expect(problems).toEqual([expect.stringContaining('unknown option "--dedline"')]);
  });

  test("no object grants or asks for a right on the Kubernetes API", () => {
    const kinds = [...rendered.values()].flatMap(({ manifests }) => manifests.map(({ kind }) => kind));
    expect(kinds.filter((kind) => /Role|Binding/.test(kind))).toEqual([]);
    const accounts = [...rendered.values()].flatMap(({ manifests }) =>
      manifests.filter(({ kind }) => kind === "ServiceAccount"),
    );
    for (const account of accounts) expect(account["automountServiceAccountToken"]).toBe(false);
  });

  test("pods that only wait hold the reader's login, or none", () => {
    const mounted = (name: string): readonly string[] =>
      podsOf(name).flatMap(({ spec }) => spec.volumes.flatMap(({ secret }) => secret?.secretName ?? []));
    expect(mounted("wait")).toEqual(["orders-db-reader"]);
    expect(mounted("gate")).toEqual([]);
    expect(mounted("init")).toEqual(["orders-db-runner"]);
  });

  test("a proxy that the database is reached by is a sidecar that starts before lockkeeper", () => {
    const [pod] = podsOf("gke");
    expect(pod?.spec.initContainers.map(({ name, restartPolicy }) => [name, restartPolicy])).toEqual([
      ["cloud-sql-proxy", "Always"],
      ["lockkeeper", undefined],
    ]);
  });

  describe("the server and the pods that ask it", () => {
    const policyOf = () => parsePolicy(read("server/policy.json"), new Set(["orders-prod"]));

    test("its configuration and its policy are read as the server reads them", async () => {
      const { targets, policyFile, publicUrl } = await loadConfig(join(infra, "server/lockkeeper.yaml"));
      expect([...targets.keys()]).toEqual(["orders-prod"]);
      const { policy } = await openPolicy(policyFile ?? "", new Set(targets.keys()));
      expect(policy.audience).toBe(publicUrl);
    });

    test("the policy loads without a warning", () => {
      expect(policyOf().warnings).toEqual([]);
    });

    test("tokens are for the audience that the server asks for, short-lived, and of accounts that a rule names", () => {
      const { audience, rules } = policyOf();
      const asking = ["gate", "argo-rollouts/analysis-templates.yaml"].flatMap(podsOf);
      expect(asking.length).toBe(2);
      for (const pod of asking) {
        const ours = containersOf(pod).filter(isOurs);
        const tokens = ours.map((container) => {
          const { args } = startOf(container, pod, [...manifestsOf("gate")]);
          const file = args.find((arg) => arg.startsWith("--token-file="))?.slice("--token-file=".length);
          return tokenAt(file ?? "", container, pod);
        });
        expect(tokens).toEqual([expect.objectContaining({ audience, expirationSeconds: 600 })]);
        const subject = `system:serviceaccount:${pod.namespace}:${pod.spec.serviceAccountName}`;
        const rule = rules.find(
          ({ from }) =>
            from.kind === "issuer" &&
            from.match.some(({ claim, anyOf }) => claim === "sub" && anyOf.includes(subject)),
        );
        expect(rule?.actions).toEqual(["status"]);
      }
    });

    test("the address that they ask is the server's Service", () => {
      const service = manifestsOf("server").find(({ kind }) => kind === "Service");
      const host = `${service?.metadata.name}.${service?.metadata.namespace}.svc`;
      const addresses = [...rendered.values()].flatMap(({ text }) => [...text.matchAll(/--url=(\S+)/g)]);
      expect(addresses.length).toBe(2);
      for (const [, url] of addresses) expect(url).toBe(`http://${host}`);
      expect(service?.["spec"]).toMatchObject({
        ports: expect.arrayContaining([expect.objectContaining({ port: 80, targetPort: "http" })]) as unknown,
      });
    });
  });

  describe("argocd", () => {
    test("whatever the PreSync Job reads is a PreSync hook before it, and nothing of the application is one", () => {
      const hooks = manifestsOf("argocd").filter(
        ({ metadata }) => metadata.annotations["argocd.argoproj.io/hook"],
      );
      const wave = ({ metadata }: Manifest): number =>
        Number(metadata.annotations["argocd.argoproj.io/sync-wave"] ?? 0);
      const job = hooks.find(({ kind }) => kind === "Job");
      const [pod] = podsIn(hooks);
      const read = (pod?.spec.volumes ?? []).flatMap(({ configMap }) => configMap?.name ?? []);
      const fromEnvironment = (pod?.spec.containers ?? [])
        .flatMap(({ env }) => env)
        .flatMap(({ valueFrom }) => valueFrom?.configMapKeyRef?.name ?? []);
      for (const name of [...read, ...fromEnvironment]) {
        const found = hooks.find(({ kind, metadata }) => kind === "ConfigMap" && metadata.name === name);
        expect(found === undefined || job === undefined ? undefined : wave(found) < wave(job), name).toBe(
          true,
        );
      }
      for (const { metadata } of hooks)
        expect(metadata.annotations["argocd.argoproj.io/hook-delete-policy"]).toBe("BeforeHookCreation");
      expect(hooks.map(({ kind }) => kind)).not.toContain("Deployment");
    });
  });
});
