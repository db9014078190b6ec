import pg from "pg";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { S3Server } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";
import { check } from "./checker.ts";
import { type Control, openControl } from "./control.ts";
import { placeOf } from "./fault.ts";
import { runRound, type RoundResult } from "./run-round.ts";
import { momentsOf } from "./point.ts";
import { drawRound } from "./round.ts";
import {
  openTransaction,
  selection,
  staleMessage,
  stalePreparedMessage,
  undisturbed,
  withoutFence,
  withoutIndex,
} from "./selection.ts";
import { openSite, type Site, startStore } from "./site.ts";

/** A fast selection of what `npm run crash` does a thousand times; see `README.md`. */

needs("versitygw");

let store: S3Server;
let site: Site;
/** for the rounds that stop it under everybody's feet */
let doomed: Site;
beforeAll(async () => {
  store = await startStore();
  [site, doomed] = await Promise.all([openSite(store), openSite(store)]);
});
afterAll(async () => {
  await site[Symbol.asyncDispose]();
  await doomed[Symbol.asyncDispose]();
  await store.stop();
});

/** What went wrong, with the story that leads there. */
function wrongIn({ violations, faults, log }: RoundResult): object {
  const missed = faults.filter(({ isStruck }) => !isStruck).map(({ fault }) => placeOf(fault));
  const isRight = violations.length === 0 && missed.length === 0;
  return isRight ? {} : { violations, missed, log };
}

describe.concurrent("every migration is applied once and in order, and nobody is asked, when", () => {
  test.for(selection())("$name", { timeout: 240_000 }, async ({ needsServer, round }) => {
    expect(wrongIn(await runRound(round, needsServer ? doomed : site))).toEqual({});
  });

  test.for([
    ["", staleMessage()],
    [" and has many bodies", stalePreparedMessage()],
  ] as const)(
    "a holder wakes with a message that has not left yet%s",
    { timeout: 240_000 },
    async ([, round]) => {
      expect(wrongIn(await runRound(round, site))).toEqual({});
    },
  );

  test("a holder freezes with its transaction open", { timeout: 240_000 }, async () => {
    expect(wrongIn(await runRound(openTransaction(), site))).toEqual({});
  });
});

describe.concurrent("the checker sees a migration applied twice", () => {
  test.for([
    ["behind a fence that never raises", staleMessage(withoutFence)],
    ["behind one that is prepared, and never raises", stalePreparedMessage(withoutFence)],
    ["after a take-over without the index", openTransaction(withoutIndex)],
  ] as const)("%s", { timeout: 240_000 }, async ([, round]) => {
    const { violations } = await runRound(round, site);
    expect(violations.map(({ rule }) => rule)).toContain("exactly once");
  });
});

/** What a round may leave behind that it must not, and the rule that has to say so. */
const wrongs = [
  ["exactly once", "INSERT INTO crash.evidence (mark) VALUES ('1.1 up')"],
  ["nothing missing", "DELETE FROM crash.evidence WHERE mark = '2.1 up'"],
  [
    "in order",
    "UPDATE crash.evidence SET mark = CASE mark WHEN '1.1 up' THEN '1.2 up' ELSE '1.1 up' END WHERE mark IN ('1.1 up', '1.2 up')",
  ],
  ["exactly once", "UPDATE crash.evidence SET mark = 'create index crash.i_4' WHERE mark = '3.1 up'"],
  ["history is whole and in order", "DELETE FROM lockkeeper.history WHERE seq = 2"],
  ["history is whole and in order", "UPDATE lockkeeper.history SET seq = 3 - seq WHERE seq < 3"],
  ["tokens never fall", "UPDATE lockkeeper.history SET token = 99 WHERE seq = 1"],
  ["a done entry has all statements", "UPDATE lockkeeper.history SET statements_done = 0 WHERE seq = 3"],
  [
    "nothing failed, nobody is asked",
    "UPDATE lockkeeper.history SET status = 'needs_attention' WHERE seq = 4",
  ],
  ["nothing is left started", "UPDATE lockkeeper.history SET status = 'started' WHERE seq = 4"],
  ["a body and its entry commit together", "UPDATE lockkeeper.history SET path = path WHERE seq = 1"],
  ["a body and its entry commit together", "UPDATE crash.evidence SET mark = mark WHERE mark = '1.1 up'"],
  ["effects are what the history says", "DROP TABLE crash.t_1"],
  ["no invalid index", "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'crash.i_4'::regclass"],
  ["a backfill reaches each row once", "INSERT INTO crash.reached VALUES (5, 17)"],
  ["a backfill reaches every row", "DELETE FROM crash.reached WHERE a = 17"],
  ["runs have ended", "UPDATE lockkeeper.runs SET status = 'running'"],
  ["the audit log is one chain", "DELETE FROM lockkeeper.audit WHERE seq = 1"],
  [
    "the audit log is one chain",
    "UPDATE lockkeeper.audit SET text = replace(text, 'apply', 'other') WHERE seq = 1",
  ],
  [
    "nothing is done that the audit log does not say",
    "UPDATE lockkeeper.audit SET text = replace(text, 'run.begun', 'run.ended')",
  ],
  [
    "the lease is free",
    "UPDATE lockkeeper.streams SET holder = 'somebody', expires_at = clock_timestamp() + interval '1 h'",
  ],
  ["the stream names the release that is applied whole", "UPDATE lockkeeper.streams SET completed = NULL"],
] as const;

test("the checker sees each thing that may be wrong", { timeout: 240_000 }, async () => {
  const seen: (readonly [rule: string, sql: string, found: boolean])[] = [];
  const { violations } = await runRound(undisturbed(), site, async (url, expected) => {
    const client = new pg.Client({ connectionString: url });
    await client.connect();
    const query: Control["query"] = async (sql) => (await client.query(sql)).rows;
    for (const [rule, sql] of wrongs) {
      await client.query("BEGIN");
      await client.query(sql);
      const found = await check({ query }, { ...expected, patienceMs: 0 });
      seen.push([rule, sql, found.some((one) => one.rule === rule)]);
      await client.query("ROLLBACK");
    }
    const other = openControl(url);
    await client.query("BEGIN; SELECT 1");
    const found = await check(other, { ...expected, patienceMs: 0 });
    seen.push(["no transaction is left open", "BEGIN", found.length > 0]);
    await other[Symbol.asyncDispose]();
    await client.end();
  });
  expect(violations).toEqual([]);
  expect(seen.filter(([, , isFound]) => !isFound)).toEqual([]);
});

describe("the selection", () => {
  test("strikes at every point and moment", () => {
    const struck = new Set<string>(
      selection().flatMap(({ round }) => round.stages.flatMap(({ faults }) => faults.map(placeOf))),
    );
    const all = Object.entries(momentsOf).flatMap(([point, moments]) =>
      moments.map((moment) => `${moment}:${point}`),
    );
    expect(all.filter((place) => !struck.has(place))).toEqual([]);
  });

  test("of a seed is the same every time", () => {
    expect(JSON.stringify(drawRound(7))).toBe(JSON.stringify(drawRound(7)));
    expect(JSON.stringify(drawRound(7))).not.toBe(JSON.stringify(drawRound(8)));
  });
});
