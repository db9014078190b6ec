import type { IncomingMessage } from "node:http";
import { describe, expect, test } from "vitest";
import { listen } from "../http/front.ts";
import { call, type Call } from "./terminal.ts";

/** Acts on a terminal, turns a line round, and is a command to GitHub in both ways that it knows. */
const hostile = "x\u001b[2J\u009b2J\u202e\n::set-output name=status::y\n##[set-output name=status]y";
/** What of it must never be said; a line end before `::` neither. */
const active = ["\u001b", "\u009b", "\u202e", "##["];
const harmless = String.raw`x\u{1b}[2J\u{9b}2J\u{202e}\u{a}::set-output name=status::y\u{a}\u{23}#[set-output name=status]y`;

const run = {
  id: hostile,
  target: hostile,
  status: "succeeded",
  done: true,
  outcome: hostile,
  release: { digest: hostile, version: null },
  from: hostile,
  to: hostile,
  progress: { applied: 1, total: 2, current: hostile },
  error: null,
};
const plan = {
  digest: hostile,
  release: { digest: hostile },
  from: hostile,
  to: hostile,
  steps: [{ version: "1", path: hostile, direction: "up", sha256: "a", tx: "one", locks: [hostile] }],
};
const entry = {
  id: 1,
  version: "1",
  path: hostile,
  direction: "up",
  status: "done",
  origin: "run",
  durationMs: 1,
};

/** A server that says whatever it likes, asked for a run on GitHub. */
async function trigger(
  answer: (request: IncomingMessage, seen: number) => unknown,
  ...more: readonly string[]
): Promise<Call & { readonly requests: number }> {
  let requests = 0;
  const url = await listen((request, response) => {
    requests += 1;
    response.end(JSON.stringify(answer(request, requests)));
  });
  const variables = { GITHUB_ACTIONS: "true", LOCKKEEPER_TOKEN: "of-a-job" };
  const ended = await call(["trigger", "--url", url, "--target", "orders", ...more], { variables });
  return { ...ended, requests };
}

function isHistory({ url }: IncomingMessage): boolean {
  return url?.includes("/history?") === true;
}

describe("trigger at a hostile server", () => {
  test.for(["words", "json"] as const)("shows its words as words, in %s", async (form) => {
    const flags = form === "json" ? ["--output", "json"] : [];
    const followed = await trigger(
      (request) => (isHistory(request) ? { history: [entry], nextPageToken: null } : run),
      ...flags,
    );
    const planned = await trigger(() => ({ target: "o", plan }), "--action", "plan", ...flags);
    for (const { code, stdout, stderr } of [followed, planned]) {
      expect(code).toBe(0);
      expect(stdout).toContain(form === "json" ? JSON.stringify(harmless) : harmless);
      for (const said of [stdout, stderr]) {
        expect(active.filter((mark) => said.includes(mark))).toEqual([]);
        // those that are ours
        expect(
          said.replace(/^::(stop-commands::)?[0-9a-f-]{36}(::)?$|^::(end)?group::.*$/gm, ""),
        ).not.toMatch(/^\s*::/m);
      }
    }
  });

  test("keeps what only JSON passes on from being a command as well", async () => {
    const { stdout } = await trigger(
      (request) => (isHistory(request) ? { history: [], nextPageToken: null } : { ...run, hostile }),
      "--output",
      "json",
    );
    expect(active.filter((mark) => stdout.includes(mark))).toEqual([]);
    expect(JSON.parse(stdout)).toMatchObject({ hostile });
  });

  test("does not read a history without an end", async () => {
    const growing = await trigger((request, id) =>
      isHistory(request) ? { history: [{ ...entry, id }], nextPageToken: "1" } : run,
    );
    expect(growing.code).toBe(0);
    expect(growing.requests).toBeLessThan(200);
    const same = await trigger((request) =>
      isHistory(request) ? { history: [entry], nextPageToken: "1" } : run,
    );
    expect(same).toMatchObject({ code: 0, requests: 3 });
  });

  test("does not overrun a server that answers at once where it was asked to wait", async () => {
    const open = {
      ...run,
      id: "orders.1",
      status: "running",
      done: false,
      progress: { applied: 0, total: 1, current: null },
    };
    const { code, requests } = await trigger(() => open, "--wait", "2s");
    expect(code).toBe(32);
    expect(requests).toBeLessThan(10);
  });
});
