import { execFile } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { part } from "../support/parts.ts";
import { type ServerProcess, startServer, untilReady, withFreePort } from "../support/server.ts";

const run = promisify(execFile);

/** A real API server without controllers or nodes: it takes, refuses and keeps objects, and nothing is ever run. */
export interface ApiServer extends AsyncDisposable {
  /** whose context is an administrator's */
  readonly kubeconfig: string;
  /** Calls kubectl; `input` is what it reads from standard input. */
  kubectl(args: readonly string[], input?: string): Promise<Called>;
}

/** How a call ended. */
export interface Called {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Name that the server's own tokens carry. */
export const clusterIssuer = "https://kubernetes.default.svc.cluster.local";

/** Starts etcd and an API server before it, on free ports of loopback. */
export async function startApiServer(): Promise<ApiServer> {
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-kubernetes-"));
  const at = (name: string): string => join(folder, name);
  const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  writeFileSync(at("sa.key"), privateKey.export({ type: "pkcs8", format: "pem" }));
  writeFileSync(at("sa.pub"), publicKey.export({ type: "spki", format: "pem" }));
  writeFileSync(at("tokens.csv"), 'admin,admin,admin,"system:masters"\n');

  let etcd = "";
  const store = await withFreePort(async (port) =>
    withFreePort(async (peer) => {
      etcd = `http://127.0.0.1:${port}`;
      const between = `http://127.0.0.1:${peer}`;
      const data = mkdtempSync(join(tmpdir(), "lockkeeper-etcd-"));
      const args = [`--data-dir=${data}`, "--unsafe-no-fsync"];
      args.push(`--listen-client-urls=${etcd}`, `--advertise-client-urls=${etcd}`);
      args.push(`--listen-peer-urls=${between}`, `--initial-advertise-peer-urls=${between}`);
      args.push(`--initial-cluster=default=${between}`);
      const server = startServer({ command: part("etcd"), args, folder: data });
      await untilReady("etcd", server, async () => (await fetch(`${etcd}/health`)).ok);
      return server;
    }),
  );

  const kubeconfig = at("kubeconfig");
  const kubectl: ApiServer["kubectl"] = (args, input) =>
    called(part("kubectl"), [`--kubeconfig=${kubeconfig}`, ...args], input);
  const server = await withFreePort(async (port) => {
    const args = [`--etcd-servers=${etcd}`, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"];
    args.push(`--secure-port=${port}`, `--cert-dir=${at("certs")}`, "--authorization-mode=RBAC");
    args.push(`--service-account-key-file=${at("sa.pub")}`);
    args.push(`--service-account-signing-key-file=${at("sa.key")}`);
    args.push(`--service-account-issuer=${clusterIssuer}`, `--token-auth-file=${at("tokens.csv")}`);
    args.push("--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none");
    const started = startServer({ command: part("kube-apiserver"), args, folder });
    const cluster = { server: `https://127.0.0.1:${port}`, "insecure-skip-tls-verify": true };
    writeFileSync(
      kubeconfig,
      JSON.stringify({
        apiVersion: "v1",
        kind: "Config",
        clusters: [{ name: "test", cluster }],
        users: [{ name: "admin", user: { token: "admin" } }],
        contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
        "current-context": "test",
      }),
      { mode: 0o600 },
    );
    await untilReady(
      "kube-apiserver",
      started,
      async () => (await kubectl(["get", "--raw=/readyz"])).code === 0,
      120_000,
    );
    return started;
  });
  return { kubeconfig, kubectl, [Symbol.asyncDispose]: () => stopBoth(server, store) };
}

/** Runs a program to its end, whatever that is. */
export async function called(
  command: string,
  args: readonly string[],
  input?: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Called> {
  const running = run(command, args, { maxBuffer: 1e8, env: { ...process.env, ...env } });
  running.child.stdin?.end(input ?? "");
  try {
    return { code: 0, ...(await running) };
  } catch (error) {
    return v.parse(v.object({ code: v.number(), stdout: v.string(), stderr: v.string() }), error);
  }
}

async function stopBoth(server: ServerProcess, store: ServerProcess): Promise<void> {
  await server.stop();
  await store.stop();
}
