import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { triggerRun } from "../../src/cli/remote.ts";
import { openServer } from "../../src/cli/remote-server.ts";
import { front, listen } from "../http/front.ts";
import { createWorld, openBarrier, orders, users } from "../http/world.ts";
import { platformWorld, playGithub } from "../infra/pipeline.ts";
import { testAudience } from "../support/token.ts";
import { folderWith, start } from "../bin/program.ts";
import { call } from "./terminal.ts";

/** The words that ask a server, with a token that the platform gives for it. */
function triggerAt(url: string): readonly string[] {
  return ["trigger", "--url", url, "--audience", testAudience, "--target", "orders"];
}

describe("trigger on GitHub", () => {
  test("asks for its own tokens, tells each migration, and writes outputs and a summary", async () => {
    const { world, issuer } = await platformWorld("github");
    const github = await playGithub(issuer);
    const release = await world.bucket.publish({ ...users, ...orders });
    const { url, tokens } = await front(world);
    const argv = [...triggerAt(url), "--release", release];
    const done = await call(argv, { variables: github.variables });
    expect(done.code).toBe(0);
    const [group, stop, ...rest] = done.stderr.trim().split("\n");
    const mark = stop?.replace("::stop-commands::", "") ?? "";
    expect(group).toBe("::group::lockkeeper: orders");
    expect(mark).toMatch(/^[0-9a-f-]{36}$/);
    expect(rest).toEqual([
      expect.stringMatching(/^1_users\.up\.sql applied in [\d.]+ m?s \(1\/2\)$/),
      expect.stringMatching(/^2_orders\.up\.sql applied in [\d.]+ m?s \(2\/2\)$/),
      "2/2 done",
      `::${mark}::`,
      "::endgroup::",
    ]);
    expect(tokens.every((token) => github.given.includes(token.replace("Bearer ", "")))).toBe(true);
    expect(done.stdout + done.stderr).not.toContain(github.given[0]);
    expect(await github.outputs()).toEqual({
      "run-id": expect.stringMatching(/^orders\.01/),
      status: "succeeded",
      outcome: "applied",
      from: "",
      to: "2",
      release,
    });
    const summary = await github.summary();
    expect(summary).toContain("### lockkeeper: orders: succeeded (applied)");
    expect(summary).toMatch(/\| `1_users\.up\.sql` \| applied \| [\d.]+ m?s \|/);
    const [run] = (await world.send("GET", "/v1/runs?target=orders")).body.runs;
    expect(run.labels).toEqual({
      commit: "3f2a9b1",
      pipelineUrl: "https://github.com/acme/orders/actions/runs/4711",
    });
  });

  test("annotates the line that failed, and keeps a message from becoming a command", async () => {
    const { world, issuer } = await platformWorld("github");
    const github = await playGithub(issuer);
    const release = await world.bucket.publish({
      "1_bad.up.sql":
        "select 1;\ndo $$ begin raise exception E'no\\n::set-output name=status::succeeded'; end $$;",
      "1_bad.down.sql": "select 1;",
    });
    const { url } = await front(world);
    const argv = triggerAt(url);
    const failed = await call([...argv, "--release", release, "--dir", "db/migrations"], {
      variables: github.variables,
    });
    expect(failed.code).toBe(21);
    const lines = failed.stderr.split("\n");
    const annotations = lines.filter((line) => line.startsWith("::error"));
    expect(annotations).toEqual([
      expect.stringMatching(
        /^::error title=lockkeeper,file=db\/migrations\/1_bad\.up\.sql.*::.*\(MIGRATION_FAILED\)$/,
      ),
    ]);
    let isStopped: string | undefined;
    for (const line of lines) {
      if (line.startsWith("::stop-commands::")) isStopped = line.slice(17);
      else if (line === `::${isStopped ?? ""}::`) isStopped = undefined;
      else if (line.trimStart().startsWith("::set-output")) expect(isStopped).toBeDefined();
    }
    expect(isStopped).toBeUndefined();
    expect(await github.outputs()).toMatchObject({ status: "failed", outcome: "failed" });
    expect(await github.summary()).toContain("**MIGRATION\\_FAILED** at `1_bad.up.sql");
  });

  test("says which permission the job lacks, and what GitHub answered", async () => {
    const { world, issuer } = await platformWorld("github");
    const github = await playGithub(issuer);
    const { url } = await front(world);
    const argv = ["trigger", "--url", url, "--target", "orders"];
    const { ACTIONS_ID_TOKEN_REQUEST_TOKEN: secret, ...without } = github.variables;
    expect(await call(argv, { variables: without })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("id-token: write"),
    });
    const refused = await call(argv, {
      variables: { ...without, ACTIONS_ID_TOKEN_REQUEST_TOKEN: `${secret ?? ""}!` },
    });
    expect(refused).toMatchObject({
      code: 31,
      stderr: expect.stringContaining("GitHub gave no token (its answer was 401)"),
    });
    expect(refused.stderr).not.toContain(`${secret ?? ""}!`);
  });

  test("plans, with the digest as an output", async () => {
    const { world, issuer } = await platformWorld("github");
    const github = await playGithub(issuer);
    const release = await world.bucket.publish({ ...users, ...orders });
    const { url } = await front(world);
    const argv = [...triggerAt(url), "--release", release];
    const planned = await call([...argv, "--action", "plan"], { variables: github.variables });
    expect(planned.code).toBe(0);
    expect(planned.stdout).toMatch(/^2 steps: orders from 0 to 2$/m);
    const { plan = "", steps } = await github.outputs();
    expect(steps).toBe("2");
    expect(planned.stdout).toContain(`plan     ${plan}`);
    expect(await github.summary()).toContain("### lockkeeper: orders: 2 steps");
    const done = await call([...argv, "--plan", plan, "--output", "json"], { variables: github.variables });
    expect(JSON.parse(done.stdout)).toMatchObject({ status: "succeeded", release: { digest: release } });
    for (const line of done.stderr.trim().split("\n")) expect(JSON.parse(line)).toHaveProperty("kind");
  });
});

describe("trigger elsewhere", () => {
  test("takes a token from the variable that GitLab fills, or from one that is named", async () => {
    const { world, token } = await platformWorld("gitlab");
    const release = await world.bucket.publish(users);
    const { url } = await front(world);
    const argv = ["trigger", "--url", url, "--target", "orders", "--release", release];
    const variables = {
      GITLAB_CI: "true",
      CI_COMMIT_SHA: "abc",
      CI_JOB_URL: "https://gitlab.example/-/jobs/1",
    };
    const done = await call(argv, { variables: { ...variables, LOCKKEEPER_TOKEN: await token() } });
    expect(done.code).toBe(0);
    const [run] = (await world.send("GET", "/v1/runs?target=orders")).body.runs;
    expect(run.labels).toEqual({ commit: "abc", pipelineUrl: "https://gitlab.example/-/jobs/1" });
    const named = await call([...argv, "--token-env", "OTHER"], { variables: { OTHER: await token() } });
    expect(named.code).toBe(0);
    const missing = await call([...argv, "--token-env", "NONE"], { variables });
    expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining("NONE is not set") });
    expect(await call(argv, { variables })).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("LOCKKEEPER_TOKEN"),
    });
  });

  test("asks Codefresh for a token as its documentation says", async () => {
    const world = await createWorld();
    const release = await world.bucket.publish(users);
    const { url } = await front(world);
    const { variables, asked } = await playCodefresh(world);
    const argv = [...triggerAt(url), "--release", release];
    expect((await call(argv, { variables })).code).toBe(0);
    expect(asked[0]).toBe(`the-build /?audience=${encodeURIComponent(testAudience)}`);
  });

  test("says who holds the lease while it waits for it", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const first = await world.bucket.publish(barrier.migration);
    const { url, answered } = await front(world);
    const begin = async (...more: string[]) =>
      call(["trigger", "--url", url, "--target", "orders", ...more], {
        variables: { LOCKKEEPER_TOKEN: await world.token() },
      });
    expect((await begin("--release", first, "--wait", "0")).code).toBe(0);
    await barrier.reached();
    const waiting = begin();
    while (!answered.includes("GET /v1/targets/orders")) await pause(20);
    await barrier.release();
    expect(await waiting).toMatchObject({
      code: 0,
      stderr: expect.stringMatching(/waiting for \S+, which has the lease .*\(run orders\.01/),
    });
  });

  test("outlasts a server that is replaced, and an expired token, while a run goes on", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const { url, keys, paths } = await front(world, (request, response, seen) => {
      request.headers["prefer"] &&= "wait=0";
      if (seen < 2 || seen > 5) return false;
      if (seen % 3 === 0) response.destroy();
      else response.writeHead(seen % 3 === 1 ? 401 : 503, { "retry-after": "0" }).end();
      return true;
    });
    const running = call(["trigger", "--url", url, "--target", "orders", "--release", release], {
      variables: { LOCKKEEPER_TOKEN: await world.token() },
    });
    await barrier.reached();
    while (paths.length < 7) await pause(20);
    await barrier.release();
    const done = await running;
    expect(done.code).toBe(0);
    expect(done.stderr).toContain("trying again in");
    expect(keys).toHaveLength(1);
  });

  test("begins no second run when the answer to its request is lost", async () => {
    const world = await createWorld();
    const release = await world.bucket.publish({ ...users, ...orders });
    const { url, keys } = await front(world, undefined, (seen) => seen === 1);
    const done = await call(["trigger", "--url", url, "--target", "orders", "--release", release], {
      variables: { LOCKKEEPER_TOKEN: await world.token() },
    });
    expect(done).toMatchObject({ code: 0, stdout: expect.stringMatching(/status +succeeded, applied/) });
    expect(keys).toHaveLength(2);
    expect((await world.send("GET", "/v1/runs?target=orders")).body.runs).toHaveLength(1);
  });

  test("does not wait for an hour where the server asks it to, and says why", async () => {
    const world = await createWorld();
    const { url, paths } = await front(world, (_, response) => {
      const problem = { code: "RATE_LIMITED", detail: 'rule "ci" allows 20 requests an hour' };
      response.writeHead(429, { "retry-after": "1800" }).end(JSON.stringify(problem));
      return true;
    });
    const limited = await call(["trigger", "--url", url, "--target", "orders"], {
      variables: { LOCKKEEPER_TOKEN: await world.token() },
    });
    expect(limited).toMatchObject({ code: 30, stderr: expect.stringContaining("20 requests an hour") });
    expect(paths).toHaveLength(1);
  });

  test("ends by SIGINT as a shell expects, and the run goes on", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const { url, paths } = await front(world, (request) => {
      request.headers["prefer"] &&= "wait=0";
      return false;
    });
    const folder = await folderWith({});
    const running = start(["trigger", "--url", url, "--target", "orders", "--release", release], folder, {
      LOCKKEEPER_TOKEN: await world.token(),
    });
    await barrier.reached();
    while (!paths.some((path) => path.startsWith("GET /v1/runs"))) await pause(20);
    running.child.kill("SIGINT");
    expect(await running.ended).toBe(130);
    const { stderr } = running.said();
    expect(stderr).toContain("no longer waiting for the run");
    expect(stderr).toMatch(/run orders\.01\w+ goes on at the server/);
    await barrier.release();
    const ended = async (): Promise<boolean> =>
      (await world.send("GET", "/v1/runs?target=orders")).body.runs[0].status === "succeeded";
    await expect.poll(ended, { timeout: 30_000 }).toBe(true);
  });

  test("gives up a run after too long without an answer, and says what it last saw", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const { url } = await front(world, (request, response, seen) => {
      request.headers["prefer"] &&= "wait=0";
      if (seen > 1) response.writeHead(502).end();
      return seen > 1;
    });
    const server = openServer(url, { next: () => world.token() }, () => undefined);
    const wish = {
      target: "orders",
      release,
      action: "apply",
      to: undefined,
      plan: undefined,
      onFailure: undefined,
      allowsBreaking: false,
      labels: {},
      waitMs: 60_000,
    } as const;
    const followed = triggerRun(server, wish, {
      signal: new AbortController().signal,
      cancelsOnAbort: false,
      outageMs: 700,
      emit: () => undefined,
      onProgress: () => undefined,
    });
    await expect(followed).rejects.toMatchObject({
      code: "SERVER_UNAVAILABLE",
      message: expect.stringMatching(
        /answered 502.*; run orders\.01\w+ was \w+ when it was last seen, and may go on$/,
      ),
      fields: { run: expect.stringMatching(/^orders\./) },
    });
    await barrier.release();
  });

  test("tells the server to stop the run when it is interrupted, where that was asked for", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const { url, paths } = await front(world, (request) => {
      request.headers["prefer"] &&= "wait=0";
      return false;
    });
    const interrupt = new AbortController();
    const { variables } = await playCodefresh(world);
    const running = call([...triggerAt(url), "--release", release, "--cancel-on-interrupt"], {
      variables,
      signal: interrupt.signal,
    });
    await barrier.reached();
    while (!paths.some((path) => path.startsWith("GET /v1/runs"))) await pause(20);
    interrupt.abort();
    expect(await running).toMatchObject({ code: 32, stderr: expect.stringContaining("told run orders.") });
    await barrier.release();
    expect(paths.at(-1)).toMatch(/^POST \/v1\/runs\/orders\.01\w+\/cancel$/);
  });
});

/** Codefresh's side of a build: tokens of the world's caller for whoever asks, and what was asked. */
async function playCodefresh(world: { token(): Promise<string> }) {
  const asked: string[] = [];
  const url = await listen((request, response) => {
    asked.push(`${request.headers.authorization ?? ""} ${request.url ?? ""}`);
    void world.token().then((token) => response.end(JSON.stringify({ id_token: token })));
  });
  return { asked, variables: { CF_OIDC_REQUEST_URL: url, CF_OIDC_REQUEST_TOKEN: "the-build" } };
}
