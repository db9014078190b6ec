import { expect, test } from "vitest";

import { freshState } from "../../src/driver/stream-state.ts";
import type { Driver } from "../../src/driver/driver.ts";
import { fetchRelease } from "../../src/run/fetch-release.ts";
import { makeRelease, provide } from "../support/plain-release.ts";
import { never } from "../support/steps.ts";

/** How often the history is asked for, for a folder on a stream that says this of itself. */
async function historiesRead(exists: boolean): Promise<number> {
  let count = 0;
  const driver = {
    history: () => {
      count += 1;
      return Promise.resolve([]);
    },
  } as unknown as Driver;
  const held = provide(await makeRelease([{ path: "1_a.up.sql", up: "SELECT 1;" }]));
  const releases = {
    ...held,
    fetch: async (...asked: Parameters<typeof held.fetch>) => {
      await asked[0].applied();
      return held.fetch(...asked);
    },
  };
  const now = new Date();
  const state = { ...freshState(now), exists };
  await fetchRelease({ driver, releases, stream: "s" }, state, { expected: undefined, now }, never);
  return count;
}

test("the history of a stream is read for a folder, but not where there is no such stream", async () => {
  expect([await historiesRead(true), await historiesRead(false)]).toEqual([1, 0]);
});
