import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { call } from "../cli/terminal.ts";
import { front } from "../http/front.ts";
import { createWorld, users } from "../http/world.ts";
import { kustomize, manifestsIn, podsIn, root } from "../infra/manifests.ts";
import { needs, part } from "../support/parts.ts";
import { testAudience } from "../support/token.ts";
import { called, clusterIssuer, startApiServer, type ApiServer, type Called } from "./api-server.ts";

needs("kubectl", "helm", "kube-apiserver", "etcd");

const kubernetes = join(root, "infra/kubernetes");
const chart = join(root, "infra/helm/lockkeeper");
const folders = readdirSync(kubernetes, { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith("/kustomization.yaml"))
  .map((file) => join(kubernetes, file, ".."))
  .toSorted();
const namespaces = ["orders", "tenants", "restricted"];

let api: ApiServer;

/** An administrator's call that has to succeed. */
async function done(args: readonly string[], input?: string): Promise<string> {
  const { code, stdout, stderr } = await api.kubectl(args, input);
  if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${stderr}`);
  return stdout;
}

beforeAll(async () => {
  api = await startApiServer();
  for (const name of namespaces) {
    await done(["create", "namespace", name]);
    // What a controller would make, and there are none.
    await done(["create", "serviceaccount", "default", "-n", name]);
  }
  await done(["label", "namespace", ...namespaces, "pod-security.kubernetes.io/enforce=restricted"]);
  await done(["apply", "-f", join(kubernetes, "server/namespace.yaml")]);
  await done(["create", "serviceaccount", "default", "-n", "lockkeeper"]);
});
afterAll(() => api[Symbol.asyncDispose]());

describe("a real API server", () => {
  test.for(folders.map((folder) => [folder.slice(kubernetes.length + 1), folder] as const))(
    "takes what is in %s, with no warning",
    async ([name, folder]) => {
      const where = name === "settings" ? ["--namespace=orders"] : [];
      const { code, stderr } = await api.kubectl(["apply", "--dry-run=server", ...where, "-k", folder]);
      expect([code, stderr]).toEqual([0, ""]);
    },
  );

  test("takes the shapes of the Secrets, and refuses a field that it does not know", async () => {
    await done(["apply", "--dry-run=server", "-f", join(kubernetes, "secrets.yaml")]);
    const wrong = (await kustomize(join(kubernetes, "job"))).replace("backoffLimit:", "backofLimit:");
    const { code, stderr } = await api.kubectl(["apply", "--dry-run=server", "-f", "-"], wrong);
    expect([code, stderr]).toEqual([1, expect.stringContaining('unknown field "spec.backofLimit"')]);
  });

  test("admits each of our pods where it enforces the restricted profile, and none that is root", async () => {
    const texts = await Promise.all(folders.map(kustomize));
    const pods = texts.flatMap((text) => podsIn(manifestsIn(text)));
    expect(pods.length).toBeGreaterThan(8);
    const asPod = (spec: object): string =>
      JSON.stringify({ apiVersion: "v1", kind: "Pod", metadata: { generateName: "one-" }, spec });
    const create = ["create", "--dry-run=server", "--namespace=restricted", "-f", "-"];
    for (const { of, spec } of pods) {
      await done(create, asPod({ ...spec, serviceAccountName: "default" }));
      const rootly = JSON.parse(
        asPod({ ...spec, serviceAccountName: "default" })
          .replaceAll('"runAsNonRoot":true', '"runAsNonRoot":false')
          .replaceAll('"runAsUser":65532', '"runAsUser":0'),
      ) as object;
      const { code, stderr } = await api.kubectl(create, JSON.stringify(rootly));
      expect([code, stderr], of).toEqual([1, expect.stringContaining('violates PodSecurity "restricted')]);
    }
  });

  test("lets our service accounts do nothing", async () => {
    await done(["apply", "-n", "orders", "-f", join(kubernetes, "gate/service-account.yaml")]);
    for (const [verb, resource] of [
      ["get", "secrets"],
      ["list", "pods"],
      ["create", "jobs.batch"],
      ["create", "events"],
      ["patch", "deployments.apps"],
    ] as const) {
      const as = "--as=system:serviceaccount:orders:orders";
      const { code, stdout } = await api.kubectl(["auth", "can-i", verb, resource, "-n", "orders", as]);
      expect([code, stdout.trim()], `${verb} ${resource}`).toEqual([1, "no"]);
    }
  });

  test("makes tokens that a lockkeeper server lets wait, for this account and this audience only", async () => {
    await done(["apply", "-n", "orders", "-f", join(kubernetes, "gate/service-account.yaml")]);
    const read = async (path: string): Promise<string> =>
      (await done(["get", "serviceaccount", "orders", "-n", "orders", "-o", `jsonpath={${path}}`])).trim();
    const policy = JSON.parse(readFileSync(join(kubernetes, "server/policy.json"), "utf8")) as {
      readonly rules: readonly { readonly match: object; readonly allow: object }[];
    };
    const [rule] = policy.rules;
    const cluster = { issuer: clusterIssuer, platform: "kubernetes", jwksFile: "c.json", algs: ["RS256"] };
    const world = await createWorld({
      callers: {
        issuers: { cluster: { ...cluster, maxTokenAge: "15m" } },
        keys: { cluster: await done(["get", "--raw", "/openid/v1/jwks"]) },
        rules: [
          {
            ...rule,
            match: { ...rule?.match, "/kubernetes.io/serviceaccount/uid": await read(".metadata.uid") },
            allow: { targets: ["orders"], actions: ["status"] },
          },
        ],
      },
    });
    const { url } = await front(world);
    const digest = await world.bucket.publish(users);
    await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" } });
    const file = join(temporaryFolder(), "token");
    const waitWith = async (account: string, audience: string): Promise<{ readonly code: number }> => {
      const args = ["create", "token", account, "-n", "orders", `--audience=${audience}`, "--duration=600s"];
      writeFileSync(file, (await done(args)).trim());
      return call(["wait", "--url", url, "--token-file", file, "--target", "orders", "--release", digest]);
    };
    expect(await waitWith("orders", testAudience)).toMatchObject({ code: 0 });
    expect(await waitWith("default", testAudience)).toMatchObject({ code: 23 });
    expect(await waitWith("orders", "https://kubernetes.default.svc")).toMatchObject({ code: 23 });
  });
});

describe("helm", () => {
  /** Helm and its timeouts: what no controller does, we do. */
  function helm(args: readonly string[]): Promise<Called> {
    const home = temporaryFolder();
    const homes = { HELM_CACHE_HOME: home, HELM_CONFIG_HOME: home, HELM_DATA_HOME: home };
    const where = [`--kubeconfig=${api.kubeconfig}`, "--namespace=orders", "--timeout=100s"];
    return called(part("helm"), [...args, ...where], undefined, homes);
  }

  test.for(["server", "google"])("installs the values of %s, and uninstalls them whole", async (set) => {
    const release = `whole-${set}`;
    const installed = await helm(["install", release, chart, `--values=${chart}/ci/${set}-values.yaml`]);
    // the Prometheus Operator's kinds are not in a plain cluster
    if (set === "server") {
      expect(installed.stderr).toContain('no matches for kind "ServiceMonitor"');
      const args = ["--set=metrics.serviceMonitor.enabled=false", `--values=${chart}/ci/${set}-values.yaml`];
      expect(await helm(["install", release, chart, ...args])).toMatchObject({ code: 0 });
    } else expect(installed).toMatchObject({ code: 0, stdout: expect.stringContaining("STATUS: deployed") });
    expect(await helm(["uninstall", release])).toMatchObject({ code: 0 });
    const kinds = "deployments,services,configmaps,cronjobs,networkpolicies,poddisruptionbudgets";
    const left = await done(["get", kinds, "-n", "orders", "-o", "name"]);
    expect(left.split("\n").filter((name) => name.includes(release) || name.includes("migrations"))).toEqual(
      [],
    );
  });

  test("waits for the hook's Job, fails with it, and is not in its own way at the next upgrade", async () => {
    const values = `--values=${chart}/ci/hook-values.yaml`;
    const job = "hooked-lockkeeper-migrate-orders-prod";
    const failed = helm(["install", "hooked", chart, values]);
    // Both were there before the Job: its pod would otherwise wait for them for ever.
    const first = await madeJob(job, "");
    await done(["get", "configmap,serviceaccount", "hooked-lockkeeper-migrate", "-n", "orders"]);
    await endJob(job, "Failed");
    expect(await failed).toMatchObject({ code: 1, stderr: expect.stringContaining("failed") });
    // It stays, for whoever wants to know why.
    expect(await uidOf(job)).toBe(first);

    const upgraded = helm(["upgrade", "--install", "hooked", chart, values]);
    await madeJob(job, first);
    await endJob(job, "Complete");
    expect(await upgraded).toMatchObject({ code: 0, stdout: expect.stringContaining("STATUS: deployed") });
  });

  async function uidOf(job: string): Promise<string> {
    const args = ["get", "job", job, "-n", "orders", "--ignore-not-found", "-o", "jsonpath={.metadata.uid}"];
    return (await done(args)).trim();
  }

  /** Waits for a Job of this name that is not the one before. */
  async function madeJob(job: string, before: string): Promise<string> {
    for (;;) {
      const uid = await uidOf(job);
      // Foreground deletion is a controller's work as well.
      if (uid !== "" && uid !== before) return uid;
      if (uid !== "") {
        const patch = '{"metadata":{"finalizers":null}}';
        await api.kubectl(["patch", "job", job, "-n", "orders", "--type=merge", `--patch=${patch}`]);
      }
      await pause(100);
    }
  }

  /** As the Job controller writes it down. */
  async function endJob(job: string, end: "Complete" | "Failed"): Promise<void> {
    const now = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    const condition = (type: string): object => ({
      type,
      status: "True",
      lastProbeTime: now,
      lastTransitionTime: now,
      reason: end === "Failed" ? "PodFailurePolicy" : "CompletionsReached",
      message: end === "Failed" ? "Container lockkeeper failed with exit code 21" : "",
    });
    const status =
      end === "Failed"
        ? { failed: 1, conditions: [condition("FailureTarget"), condition("Failed")] }
        : {
            succeeded: 1,
            completionTime: now,
            conditions: [condition("SuccessCriteriaMet"), condition("Complete")],
          };
    const patch = JSON.stringify({ status: { startTime: now, uncountedTerminatedPods: {}, ...status } });
    const where = ["patch", "job", job, "-n", "orders", "--subresource=status", "--type=merge"];
    await done([...where, `--patch=${patch}`]);
  }
});

function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-slow-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
