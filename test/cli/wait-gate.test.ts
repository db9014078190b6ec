import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, onTestFinished, test } from "vitest";

import { front, listen } from "../http/front.ts";
import { createWorld, orders, users, type World } from "../http/world.ts";
import { createIssuer, testAudience, type TestIssuer } from "../support/token.ts";
import { call } from "./terminal.ts";

const apply = { target: "orders", action: "apply" };
const migrator = { name: "migrator", uid: "0f6c2e5a-6f0d-4a55-9a3e-3c1b8f1d2e4f" };

/** A world that believes a cluster's tokens as far as `infra/callers.md` says, for looking only. */
async function clusterWorld(): Promise<{ readonly world: World; readonly cluster: TestIssuer }> {
  const cluster = await createIssuer({ url: "https://kubernetes.default.svc.cluster.local" });
  const world = await createWorld({
    callers: {
      issuers: {
        cluster: {
          issuer: cluster.url,
          platform: "kubernetes",
          jwksFile: "cluster.jwks.json",
          algs: ["ES256"],
          maxTokenAge: "15m",
        },
      },
      keys: { cluster: cluster.jwks },
      rules: [
        {
          id: "cluster-orders",
          issuer: "cluster",
          match: {
            sub: "system:serviceaccount:shop:orders",
            "/kubernetes.io/namespace": "shop",
            "/kubernetes.io/serviceaccount/uid": migrator.uid,
          },
          allow: { targets: ["orders"], actions: ["status"] },
        },
      ],
    },
  });
  return { world, cluster };
}

/** What the kubelet puts into a projected volume. */
function serviceAccountToken(cluster: TestIssuer, name = "orders", ageMs = 0): Promise<string> {
  const now = new Date(Date.now() - ageMs);
  const seconds = Math.floor(now.getTime() / 1_000);
  return cluster.token(
    {
      aud: [testAudience],
      sub: `system:serviceaccount:shop:${name}`,
      nbf: seconds,
      exp: seconds + 3_607,
      "kubernetes.io": {
        namespace: "shop",
        node: { name: "node-1", uid: "7d5a9a1e-4a6e-4a55-8d50-9f0f5f0a1c11" },
        pod: { name: "orders-6d4cf56db6-abcde", uid: "5c5f0b7e-0c7a-4d6f-9d8e-2f6f2f9b1c22" },
        serviceaccount: { ...migrator, name },
      },
    },
    { now },
  );
}

async function tokenFile(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-wait-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "token");
  await writeFile(file, text);
  return file;
}

const wait = (url: string, file: string, ...more: readonly string[]) =>
  call(["wait", "--url", url, "--token-file", file, "--target", "orders", ...more]);

describe("wait by a server's gate", () => {
  test("ends for a pod's service account when the release, the place or the version is there, and holds under newer ones", async () => {
    const { world, cluster } = await clusterWorld();
    const { url } = await front(world);
    const file = await tokenFile(await serviceAccountToken(cluster));
    const digest = await world.bucket.publish(users);
    const early = await wait(url, file, "--release", digest, "--timeout", "0");
    expect(early).toMatchObject({ code: 32, stderr: expect.stringMatching(/^ *code: +NOT_APPLIED/m) });

    const waiting = wait(url, file, "--release", digest, "--timeout", "5m");
    await world.send("POST", "/v1/runs", { body: apply });
    expect(await waiting).toMatchObject({ code: 0, stdout: expect.stringContaining(digest) });
    const { stdout } = await wait(url, file, "--min", "1", "--output", "json");
    const found = JSON.parse(stdout) as { readonly chain: string };
    expect(found).toEqual({
      target: "orders",
      version: "1",
      chain: expect.stringMatching(/^1:/),
      completed: digest,
    });

    await world.bucket.publish({ ...users, ...orders });
    await world.send("POST", "/v1/runs", { body: apply });
    expect(await wait(url, file, "--release", digest)).toMatchObject({ code: 0 });
    expect(await wait(url, file, "--expect-chain", found.chain)).toMatchObject({ code: 0 });
    expect(await wait(url, file, "--min", "3", "--timeout", "0")).toMatchObject({ code: 32 });
    expect(world.log.some((record) => JSON.stringify(record).includes("cluster-orders"))).toBe(true);
  });

  test("reads the token anew for each request, and outlasts a server that is not there", async () => {
    const { world, cluster } = await clusterWorld();
    await world.bucket.publish(users);
    const [old, fresh] = [
      await serviceAccountToken(cluster, "orders", 20 * 60_000),
      await serviceAccountToken(cluster),
    ];
    const file = await tokenFile(old);
    let isUp = false;
    const { url, tokens } = await front(world, (_, response) => {
      if (isUp) return false;
      response.writeHead(503, { "content-type": "text/html" }).end("<h1>no healthy upstream</h1>");
      return true;
    });
    const waiting = wait(url, file, "--min", "1", "--timeout", "5m", "--output", "json");
    while (tokens.length === 0) await pause(20);
    await world.send("POST", "/v1/runs", { body: apply });
    await writeFile(file, fresh);
    isUp = true;
    const ended = await waiting;
    expect(ended).toMatchObject({ code: 0 });
    expect(JSON.parse(ended.stdout)).toMatchObject({ version: "1" });
    const [first = ""] = ended.stderr.split("\n");
    expect(JSON.parse(first)).toMatchObject({ kind: "waiting", code: "SERVER_UNAVAILABLE" });
    expect(new Set(tokens)).toEqual(new Set([`Bearer ${old}`, `Bearer ${fresh}`]));
  });

  test("ends at once with 23 for another service account, and with 2 for a target that the caller may not see", async () => {
    const { world, cluster } = await clusterWorld();
    const { url } = await front(world);
    const other = await tokenFile(await serviceAccountToken(cluster, "default"));
    expect(await wait(url, other, "--min", "1")).toMatchObject({
      code: 23,
      stderr: expect.stringMatching(/^ *code: +NOT_ALLOWED/m),
    });
    const admin = await tokenFile(await world.token());
    const unknown = await call(["wait", "--url", url, "--token-file", admin, "--target", "x", "--min", "1"]);
    expect(unknown).toMatchObject({ code: 2, stderr: expect.stringMatching(/code: +UNKNOWN_TARGET/) });
  });

  test("says 31 where no server was ever reached, and stops at a signal", async () => {
    const file = await tokenFile("t");
    const nobody = "http://127.0.0.1:1";
    const gone = await wait(nobody, file, "--min", "1", "--timeout", "0");
    expect(gone).toMatchObject({ code: 31, stderr: expect.stringMatching(/^ *code: +SERVER_UNAVAILABLE/m) });
    const stop = new AbortController();
    const waiting = call(
      ["wait", "--url", nobody, "--token-file", file, "--target", "orders", "--min", "1"],
      {
        signal: stop.signal,
      },
    );
    stop.abort();
    expect(await waiting).toMatchObject({ code: 32 });
  });

  test("waits for a server that never answers no longer than --timeout", async () => {
    const url = await listen(() => undefined);
    const began = performance.now();
    const argv = ["wait", "--url", url, "--target", "orders", "--min", "1", "--timeout", "1s"];
    expect(await call(argv, { variables: { LOCKKEEPER_TOKEN: "of-a-pod" } })).toMatchObject({
      code: 31,
      stderr: expect.stringContaining(`${url} does not answer`),
    });
    // a request alone would wait for a minute
    expect(performance.now() - began).toBeLessThan(30_000);
  });

  test("needs a target, and neither a database nor a token file on its own", async () => {
    const ask = (...argv: string[]) => call(["wait", "--min", "1", ...argv]);
    for (const argv of [
      ["--url", "http://127.0.0.1:1", "--token-file", "t"],
      ["--url", "http://127.0.0.1:1", "--target", "orders", "--database", "postgres://x@127.0.0.1:1/x"],
      ["--token-file", "t", "--database", "postgres://x@127.0.0.1:1/x"],
      ["--url", "https://me:secret@migrate.example", "--token-file", "t", "--target", "orders"],
    ]) {
      const { code, stderr } = await ask(...argv);
      expect({ argv, code }).toEqual({ argv, code: 2 });
      expect(stderr).not.toContain("secret");
    }
    const nobody = await ask("--url", "http://127.0.0.1:1", "--target", "orders");
    expect(nobody).toMatchObject({ code: 2, stderr: expect.stringContaining("LOCKKEEPER_TOKEN") });
    expect(nobody.stderr).not.toContain("--token-env");
  });
});
