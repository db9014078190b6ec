import { expect } from "vitest";

import type { TrustAnchor } from "../../src/release/trust/anchor.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { RunRequest } from "../../src/runner.ts";
import type { Source } from "../../src/source/source.ts";
import type { TestDatabase } from "../support/database.ts";
import { targetOn } from "../support/target.ts";

/** Whose word is taken, and where it is looked for. */
export interface Attacked {
  readonly source: Source;
  readonly trust: TrustAnchor;
  readonly environment?: string;
}

/** A run of the stream `orders` on what the attacker left there; refused or not. */
export async function runOn(
  database: TestDatabase,
  { source, trust, environment = "default" }: Attacked,
  request: Partial<RunRequest> = {},
): ReturnType<Awaited<ReturnType<typeof targetOn>>["run"]> {
  const releases = signedReleases({ source, stream: "orders", environment, engine: "postgres", trust });
  return (await targetOn(database.url, releases, { environment })).run(request);
}

/** The code with which a run is refused; fails where it did something, or where the database is not as it was before. */
export async function refusedOn(
  database: TestDatabase,
  attacked: Attacked,
  request: Partial<RunRequest> = {},
): Promise<string> {
  const before = await stateOf(database);
  const result = await runOn(database, attacked, request);
  expect(result).toMatchObject({ status: "failed", done: [] });
  expect(await stateOf(database)).toEqual(before);
  return result.error?.code ?? "none";
}

/** All that a migration, or word of one, would change: tables, history, and what is remembered of releases and roots. */
export async function stateOf(database: TestDatabase): Promise<unknown> {
  const tables = await database.query(
    "SELECT tablename FROM pg_catalog.pg_tables WHERE schemaname = 'public' ORDER BY 1",
  );
  const [ours] = await database.query<{ there: boolean }>(
    "SELECT to_regclass('lockkeeper.history') IS NOT NULL AS there",
  );
  if (ours?.there !== true) return { tables, history: [], streams: [] };
  const history = await database.query("SELECT * FROM lockkeeper.history ORDER BY id");
  const streams = await database.query(
    "SELECT name, epoch, version, release, completed, held, failed, paused, root_version FROM lockkeeper.streams WHERE release IS NOT NULL ORDER BY 1",
  );
  return { tables, history, streams };
}
