import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { front } from "../http/front.ts";
import type { Fault, Front } from "../http/front.ts";
import { openBarrier, orders, users } from "../http/world.ts";
import { needs } from "../support/parts.ts";
import { testAudience } from "../support/token.ts";
import { actionInputs, platformWorld, playGithub, startScript, stepOfAction } from "./pipeline.ts";
import type { GithubSide, Said, Started } from "./pipeline.ts";

needs("curl", "jq");

const notes = { "3_notes.up.sql": "create table notes ();", "3_notes.down.sql": "drop table notes;" };

/** The composite action's step, as a job on GitHub begins it. */
async function begin(
  github: GithubSide,
  { url }: Pick<Front, "url">,
  inputs: Readonly<Record<string, string>>,
): Promise<Started> {
  const step = stepOfAction({ url, target: "orders", audience: testAudience, ...inputs });
  return startScript(step.run, {
    folder: github.folder,
    variables: { ...github.variables, ...step.env },
  });
}

async function act(...given: Parameters<typeof begin>): Promise<Said> {
  return (await begin(...given)).ended;
}

/** Until the front has seen this many requests. */
async function seen({ paths }: Front, count: number): Promise<void> {
  while (paths.length < count) await pause(20);
}

/** What a line of the log would tell GitHub to do. */
function commandsIn({ text }: Said): readonly string[] {
  return text.split("\n").filter((line) => line.trimStart().startsWith("::") || line.includes("##["));
}

/** A gateway, or a server that is being replaced. */
function answerWith(status: number, headers: Readonly<Record<string, string>> = {}): Fault {
  return (_, response) => {
    response.writeHead(status, headers).end("<html>not now</html>");
    return true;
  };
}

describe("the action for GitHub", () => {
  test("applies a release with a fresh token for each request; outputs and summary say what was done", async () => {
    const { world, issuer } = await platformWorld("github");
    const github = await playGithub(issuer);
    const release = await world.bucket.publish({ ...users, ...orders });
    const server = await front(world);
    const said = await act(github, server, { release, labels: "team=shop\nwho=a b" });
    expect(said).toMatchObject({ code: 0, text: expect.stringContaining("lockkeeper: 2/2 applied") });
    expect(await github.outputs()).toEqual({
      "run-id": expect.stringMatching(/^orders\.01[0-9A-Z]{24}$/),
      status: "succeeded",
      outcome: "applied",
      from: "",
      to: "2",
      release,
    });
    const summary = await github.summary();
    expect(summary).toContain("### lockkeeper: orders: succeeded (applied)\n");
    expect(summary).toContain(`| release | \`${release}\``);
    expect(summary).toMatch(/\| `1_users\.up\.sql` \| applied \| [\d.]+ m?s \|/);
    expect(summary).toMatch(/\| `2_orders\.up\.sql` \| applied \| [\d.]+ m?s \|/);
    expect(server.tokens).toEqual(github.given.map((token) => `Bearer ${token}`));
    expect(new Set(github.given).size).toBe(github.given.length);
    expect(commandsIn(said)).toEqual(github.given.map((token) => `::add-mask::${token}`));
    const [run] = (await world.send("GET", "/v1/runs?target=orders")).body.runs;
    expect(run).toMatchObject({
      trigger: { rule: "github-deploy" },
      labels: {
        team: "shop",
        who: "a b",
        commit: "3f2a9b1",
        pipelineUrl: "https://github.com/acme/orders/actions/runs/4711",
      },
    });
    const again = await act(github, server, { release });
    expect(again).toMatchObject({
      code: 0,
      text: expect.stringContaining("nothing to do, the database is at 2"),
    });
  });

  test("fails the step when a migration fails, and points at its line", async () => {
    const { world, issuer } = await platformWorld("github");
    const github = await playGithub(issuer);
    const bad = await world.bucket.publish({
      ...users,
      "2_bad.up.sql": "select 1 as one,\n nmae from pg_class;",
      "2_bad.down.sql": "select 1;",
    });
    const said = await act(github, await front(world), { release: bad, folder: "db/migrations/" });
    expect(said.code).toBe(1);
    const errors = commandsIn(said).filter((line) => line.startsWith("::error"));
    expect(errors).toEqual([
      expect.stringMatching(
        /^::error title=lockkeeper,file=db\/migrations\/2_bad\.up\.sql,line=2,col=2::MIGRATION_FAILED: /,
      ),
    ]);
    expect(await github.outputs()).toMatchObject({ status: "failed", outcome: "failed", from: "", to: "2" });
    const summary = await github.summary();
    expect(summary).toContain("### lockkeeper: orders: failed (failed)");
    expect(summary).toContain("| database | was at 0, wanted is 2 |");
    expect(summary).toMatch(/\| `1_users\.up\.sql` \| applied \|/);
    expect(summary).toContain("**MIGRATION\\_FAILED** at `2_bad.up.sql:2:2`");
  });

  test("fails the step when the release, or the caller, is refused", async () => {
    const { world, issuer } = await platformWorld("github");
    const unknown = `sha256:${"0".repeat(64)}`;
    const github = await playGithub(issuer);
    const server = await front(world);
    const refused = await act(github, server, { release: unknown });
    expect(refused).toMatchObject({ code: 1, text: expect.stringContaining("::RELEASE_NOT_FOUND: ") });
    expect(await github.outputs()).toMatchObject({ status: "failed", outcome: "refused" });
    const stranger = await playGithub(issuer, () => ({ environment: "staging" }));
    const denied = await act(stranger, server, { release: unknown });
    expect(denied).toMatchObject({ code: 1, text: expect.stringContaining("::error title=lockkeeper::") });
    expect(denied.text).toContain("NOT_ALLOWED");
    expect(await stranger.outputs()).toEqual({ "run-id": "", status: "unknown" });
    expect(await stranger.summary()).toContain("### lockkeeper: orders: no run");
    const { ACTIONS_ID_TOKEN_REQUEST_URL: _, ...without } = github.variables;
    const tokenless = await act({ ...github, variables: without }, server, {});
    expect(tokenless).toMatchObject({ code: 2, text: expect.stringContaining("id-token: write") });
  });

  test("follows a run through a gateway's time-out, a lost connection, a token that has expired, and a restart", async () => {
    const { world, issuer } = await platformWorld("github");
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const past = Math.floor(Date.now() / 1000) - 3600;
    // the fourth token is for the fourth request
    const github = await playGithub(issuer, (count) => (count === 4 ? { iat: past, exp: past + 300 } : {}));
    const faults = new Map<number, Fault>([
      [1, answerWith(503, { "retry-after": "0" })],
      [3, answerWith(504, { "retry-after": "0" })],
      [
        6,
        (_, response) => {
          response.destroy();
          return true;
        },
      ],
    ]);
    const server = await front(world, (request, response, seen) => {
      // so that a poll ends while the migration still waits
      request.url = request.url?.replace(/wait=\d+/, "wait=1");
      request.headers["prefer"] &&= "wait=1";
      return faults.get(seen)?.(request, response, seen) ?? false;
    });
    const step = await begin(github, server, { release });
    await barrier.reached();
    await seen(server, 7);
    await barrier.release();
    const said = await step.ended;
    expect(said.code).toBe(0);
    expect(await github.outputs()).toMatchObject({ status: "succeeded", outcome: "applied" });
    for (const words of ["answered 503", "answered 504", "UNAUTHENTICATED", "no answer from the server"])
      expect(said.text).toContain(words);
    expect(server.keys).toHaveLength(2);
    expect(new Set(server.keys).size).toBe(1);
    expect((await world.send("GET", "/v1/runs?target=orders")).body.runs).toHaveLength(1);
  });

  test("never reports a success that it has not seen", async () => {
    const { world, issuer } = await platformWorld("github");
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const server = await front(world, (request, response, seen) => {
      request.headers["prefer"] &&= "wait=0";
      return seen > 1 && answerWith(500)(request, response, seen);
    });
    const github = await playGithub(issuer);
    const lost = await act(github, server, { release });
    expect(lost).toMatchObject({ code: 1, text: expect.stringContaining("may go on") });
    expect(await github.outputs()).toMatchObject({
      "run-id": expect.stringMatching(/^orders\./),
      status: "unknown",
    });
    expect(await github.summary()).toContain("nobody knows");
    const patient = await playGithub(issuer);
    const late = await act(patient, await front(world), { release, wait: "1s" });
    expect(late).toMatchObject({ code: 1, text: expect.stringContaining("it goes on at the server") });
    await barrier.release();
    const portal = await front(world, answerWith(200));
    expect((await act(await playGithub(issuer), portal, { release })).code).toBe(1);
  });

  test("takes whatever stands in an input for a text", async () => {
    const { world, issuer } = await platformWorld("github");
    const server = await front(world);
    const text = `"; touch pwned; echo "$(touch pwned)\`touch pwned\`'; touch pwned\n::error::x\n##[set-output name=a]b`;
    const release = `sha256:${"0".repeat(64)}`;
    const names = Object.keys(actionInputs).filter(
      (name) => !["url", "allow-breaking", "cancel-on-interrupt"].includes(name),
    );
    expect(names.length).toBeGreaterThan(8);
    for (const name of names) {
      const github = await playGithub(issuer);
      const said = await act(github, server, { release, [name]: text });
      expect(said.code, name).not.toBe(0);
      expect(existsSync(join(github.folder, "pwned")), name).toBe(false);
      expect(commandsIn(said).filter((line) => !/^::(?:add-mask|error (?:title|file))/.test(line))).toEqual(
        [],
      );
      const outputs = Object.keys(await github.outputs());
      expect(
        outputs.filter((one) => !["run-id", "status", "outcome", "from", "to", "release"].includes(one)),
      ).toEqual([]);
    }
  });

  test("asks again where an answer broke off, or has no end", async () => {
    const { world, issuer } = await platformWorld("github");
    const release = await world.bucket.publish(users);
    const chunk = Buffer.alloc(1024 * 1024, " ");
    let sent = 0;
    const server = await front(world, (_, response, count) => {
      if (count > 2) return false;
      response.writeHead(200, count === 1 ? { "content-length": "100" } : {});
      if (count === 1) {
        response.write('{"id":"orders.1",', () => response.destroy());
        return true;
      }
      const pour = (): void => {
        if (response.destroyed) return;
        sent += chunk.length;
        response.write(chunk, pour);
      };
      pour();
      return true;
    });
    // digits that a shell could take for octal ones
    const said = await act(await playGithub(issuer), server, { release, wait: "099s" });
    expect(said).toMatchObject({ code: 0, text: expect.stringContaining("1/1 applied") });
    expect(said.text.match(/no answer from the server .* trying again/g)).toHaveLength(2);
    expect(sent).toBeLessThan(100 * 1024 * 1024);
    expect(new Set(server.keys).size).toBe(1);
  });

  test("takes nothing that a server says for a command of GitHub, or for Markdown", async () => {
    const { issuer, world } = await platformWorld("github");
    const github = await playGithub(issuer);
    const evil =
      "x\n::set-output name=status::succeeded\n##[set-output name=status]succeeded | `a` <b> @acme";
    const server = await front(world, ({ url }, response) => {
      const progress = { applied: evil, total: evil, current: evil, message: evil };
      const error = { code: evil, message: evil, hint: evil, fields: { migration: evil, line: evil } };
      const run = { id: evil, target: evil, status: evil, done: true, outcome: evil, from: evil, to: evil };
      const past = { history: [{ path: evil, status: evil, direction: evil, durationMs: evil }] };
      const shown = { ...run, release: { digest: evil, version: evil }, progress, error };
      response.writeHead(200).end(JSON.stringify(url?.includes("/history") === true ? past : shown));
      return true;
    });
    const said = await act(github, server, {});
    expect(said.code).toBe(1);
    const commands = commandsIn(said);
    expect(commands.filter((line) => !/^::(?:add-mask|error title=)/.test(line))).toEqual([]);
    const lines = (await github.summary()).split("\n");
    expect(
      lines.filter(
        (line) => /^(?:::|##\[)/.test(line) || /(?<!\\)[<@]/.test(line.replaceAll(/`[^`]*`/g, "")),
      ),
    ).toEqual([]);
    expect(Object.keys(await github.outputs()).toSorted()).toEqual([
      "from",
      "outcome",
      "release",
      "run-id",
      "status",
      "to",
    ]);
  });

  test("plans, and then runs exactly the plan that somebody approved", async () => {
    const { world, issuer } = await platformWorld("github");
    const github = await playGithub(issuer);
    const release = await world.bucket.publish({ ...users, ...orders });
    const server = await front(world);
    const planned = await act(github, server, { release, action: "plan" });
    expect(planned).toMatchObject({
      code: 0,
      text: expect.stringContaining("lockkeeper: up 1_users.up.sql"),
    });
    const { plan = "", ...rest } = await github.outputs();
    expect(rest).toEqual({ steps: "2", release, from: "", to: "2" });
    expect(await github.summary()).toContain("| `2_orders.up.sql` | up |");
    const later = await playGithub(issuer);
    expect((await act(later, server, { release, plan })).code).toBe(0);
    const newer = await world.bucket.publish({ ...users, ...orders, ...notes });
    const stale = await act(await playGithub(issuer), server, {
      release: newer,
      plan: `sha256:${"1".repeat(64)}`,
    });
    expect(stale).toMatchObject({ code: 1, text: expect.stringContaining("PLAN_CHANGED") });
  });

  test("when the job is canceled, the run goes on, or is canceled where that was asked for", async () => {
    const { world, issuer } = await platformWorld("github");
    const barrier = await openBarrier(world);
    const release = await world.bucket.publish(barrier.migration);
    const short: Fault = (request) => {
      request.headers["prefer"] &&= "wait=0";
      return false;
    };
    const leaving = await front(world, short);
    const first = await begin(await playGithub(issuer), leaving, { release });
    await barrier.reached();
    await seen(leaving, 2);
    first.interrupt();
    const left = await first.ended;
    expect(left).toMatchObject({ code: 1, text: expect.stringContaining("goes on at the server") });
    const canceling = await front(world, short);
    const second = await begin(await playGithub(issuer), canceling, {
      release,
      "cancel-on-interrupt": "true",
    });
    await seen(canceling, 2);
    second.interrupt();
    expect((await second.ended).text).toContain("told run orders.");
    await barrier.release();
    const ended = async (): Promise<boolean> =>
      (await world.send("GET", "/v1/runs?target=orders")).body.runs[0].done;
    await expect.poll(ended, { timeout: 30_000 }).toBe(true);
    const { runs } = (await world.send("GET", "/v1/runs?target=orders")).body;
    expect(runs).toHaveLength(1);
    expect(runs[0]).toMatchObject({ cancelRequested: true });
  });
});
