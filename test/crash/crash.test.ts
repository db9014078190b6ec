import { afterAll, beforeAll, describe, expect, test } from "vitest";

import type { S3Server } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";
import { placeOf } from "./fault.ts";
import { play, type Played } from "./play.ts";
import { momentsOf } from "./point.ts";
import { drawRound } from "./round.ts";
import { openTransaction, selection, staleMessage, withoutFence, withoutIndex } from "./selection.ts";
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
function wrongIn({ violations, faults, log }: Played): object {
  const missed = faults.filter(({ isStruck }) => !isStruck).map(({ fault }) => placeOf(fault));
  const isRight = violations.length === 0 && missed.length === 0;
  return isRight ? {} : { violations, missed, log };
}

describe.concurrent("every migration is applied once and in order, and nobody is asked, when", () => {
  test.for(selection())("$name", { timeout: 240_000 }, async ({ needsServer, round }) => {
    expect(wrongIn(await play(round, needsServer ? doomed : site))).toEqual({});
  });

  test("a holder wakes with a message that has not left yet", { timeout: 240_000 }, async () => {
    expect(wrongIn(await play(staleMessage(), site))).toEqual({});
  });

  test("a holder freezes with its transaction open", { timeout: 240_000 }, async () => {
    expect(wrongIn(await play(openTransaction(), site))).toEqual({});
  });
});

describe.concurrent("the checker sees a migration applied twice", () => {
  test.for([
    ["behind a fence that never raises", staleMessage(withoutFence)],
    ["after a take-over without the index", openTransaction(withoutIndex)],
  ] as const)("%s", { timeout: 240_000 }, async ([, round]) => {
    const { violations } = await play(round, site);
    expect(violations.map(({ rule }) => rule)).toContain("exactly once");
  });
});

describe("the selection", () => {
  test("strikes at every point and moment", () => {
    const struck = new Set<string>(
      selection().flatMap(({ round }) => round.legs.flatMap(({ faults }) => faults.map(placeOf))),
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
