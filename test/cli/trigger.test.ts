import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { front } from "../http/front.ts";
import { createWorld, openBarrier, orders, users } from "../http/world.ts";
import { call } from "./terminal.ts";

async function tokenFile(text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-trigger-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "token");
  await writeFile(file, `${text}\n`);
  return file;
}

/** The command line, with the token in a file of its own. */
async function trigger(url: string, token: string, ...more: readonly string[]): Promise<readonly string[]> {
  return ["trigger", "--url", url, "--token-file", await tokenFile(token), "--target", "orders", ...more];
}

describe("trigger", () => {
  test("applies a release, follows it, and exits 0; asking again does nothing", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders });
    const { url } = await front(world);
    const first = await call(await trigger(url, await world.token(), "--release", digest));
    expect(first).toMatchObject({ code: 0 });
    expect(first.stdout).toMatch(/^status +succeeded, applied$/m);
    expect(first.stdout).toMatch(/^to +2$/m);
    const more = ["--release", digest, "--label", "commit=3f2a9b1", "--output", "json"];
    const again = await call(await trigger(url, await world.token(), ...more));
    expect(again.code).toBe(0);
    expect(JSON.parse(again.stdout)).toMatchObject({ done: true, outcome: "noop", release: { digest } });
  });

  test("rolls back to a version", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders });
    const { url } = await front(world);
    const argv = async (...more: string[]) => trigger(url, await world.token(), "--release", digest, ...more);
    expect((await call(await argv())).code).toBe(0);
    const back = await call(await argv("--action", "rollback", "--to", "1"));
    expect(back.code).toBe(0);
    expect(back.stdout).toMatch(/^status +succeeded, rolled_back$/m);
  });

  test("reads its token anew for each request, and sends one idempotency key", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const digest = await world.bucket.publish(barrier.migration);
    const file = await tokenFile(await world.token());
    const later = await world.token();
    const { url, tokens, keys } = await front(world, (request, response, seen) => {
      if (request.method !== "POST" || seen > 1) return false;
      response.writeHead(503, { "retry-after": "0" }).end("<html>busy</html>");
      return true;
    });
    const running = call([
      "trigger",
      "--url",
      url,
      "--token-file",
      file,
      "--target",
      "orders",
      "--release",
      digest,
    ]);
    await barrier.reached();
    await writeFile(file, later);
    // The first of two has been answered, and with that the progress was told.
    await expect.poll(() => tokens.filter((token) => token === `Bearer ${later}`).length).toBeGreaterThan(1);
    await barrier.release();
    const { code, stderr } = await running;
    expect(code).toBe(0);
    expect(stderr).toContain("0/1 done");
    expect(keys).toHaveLength(2);
    expect(new Set(keys).size).toBe(1);
  });

  test("exits by the reason that the server gives", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({
      "1_bad.up.sql": "select nmae from pg_class;",
      "1_bad.down.sql": "select 1;",
    });
    const { url } = await front(world);
    const argv = async (claims: Readonly<Record<string, unknown>>, ...more: string[]) =>
      trigger(url, await world.token(claims), ...more);
    const failed = await call(await argv({}, "--release", digest));
    expect(failed.code).toBe(21);
    expect(failed.stdout).toMatch(/^status +failed, failed$/m);
    expect(failed.stderr).toContain("1_bad.up.sql:1:8");
    expect(failed.stderr).toContain("code:     MIGRATION_FAILED");
    const refused = await call(await argv({}, "--release", `sha256:${"0".repeat(64)}`));
    expect(refused.code).toBe(20);
    expect(refused.stderr).toContain("code:     RELEASE_NOT_FOUND");
    const viewer = await call(await argv({ role: "viewer" }, "--release", digest));
    expect(viewer.code).toBe(23);
    const unknown = await call(
      await argv({ aud: "https://elsewhere.test" }, "--release", digest, "--output", "json"),
    );
    expect(unknown.code).toBe(23);
    expect(JSON.parse(unknown.stdout)).toMatchObject({ error: { code: "UNAUTHENTICATED", exitCode: 23 } });
  });

  test("stops waiting when it is interrupted or its patience ends, and says that the run goes on", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const digest = await world.bucket.publish(barrier.migration);
    const { url } = await front(world);
    const argv = async (...more: string[]) => trigger(url, await world.token(), "--release", digest, ...more);
    const interrupt = new AbortController();
    const interrupted = call(await argv(), { signal: interrupt.signal });
    await barrier.reached();
    interrupt.abort();
    expect(await interrupted).toMatchObject({
      code: 32,
      stderr: expect.stringMatching(/goes on at the server|may have begun the run/),
    });
    const impatient = await call(await argv("--wait", "1s"));
    expect(impatient).toMatchObject({ code: 32, stderr: expect.stringContaining("code:     DEADLINE") });
    expect((await call(await argv("--wait", "0"))).code).toBe(0);
    await barrier.release();
    expect((await call(await argv())).code).toBe(0);
  });

  test("gives up after five tries, without the token in what it says", async () => {
    const world = await createWorld();
    const { url, tokens } = await front(world, (_, response) => {
      response.destroy();
      return true;
    });
    const { code, stderr } = await call([
      "trigger",
      "--url",
      url,
      "--token-file",
      await tokenFile("hunter2"),
      "--target",
      "orders",
      "--verbose",
    ]);
    expect(code).toBe(31);
    expect(stderr).toContain("code:     SERVER_UNAVAILABLE");
    expect(tokens).toHaveLength(5);
    expect(stderr).not.toContain("hunter2");
  });

  test("does not follow a redirect with its token", async () => {
    const world = await createWorld();
    const elsewhere = await front(world);
    const { url } = await front(world, (_, response) => {
      response.writeHead(307, { location: `${elsewhere.url}/v1/runs` }).end();
      return true;
    });
    const { code, stderr } = await call([
      "trigger",
      "--url",
      url,
      "--token-file",
      await tokenFile("hunter2"),
      "--target",
      "orders",
    ]);
    expect(code).toBe(31);
    expect(stderr).toContain("answered 307");
    expect(elsewhere.tokens).toEqual([]);
  });

  test("names a token file that cannot be used, without its content", async () => {
    const missing = await call([
      "trigger",
      "--url",
      "http://127.0.0.1:1",
      "--token-file",
      "no-such-file",
      "--target",
      "orders",
    ]);
    expect(missing).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('--token-file: "no-such-file" cannot be read (ENOENT)'),
    });
    const empty = await call([
      "trigger",
      "--url",
      "http://127.0.0.1:1",
      "--token-file",
      await tokenFile(""),
      "--target",
      "orders",
    ]);
    expect(empty).toMatchObject({ code: 2, stderr: expect.stringContaining("is empty") });
  });
});
