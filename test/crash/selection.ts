import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";
import type { Fault, FaultKind } from "./fault.ts";
import type { Moment, Point } from "./point.ts";
import { randomOf } from "./random.ts";
import type { Stage, Round } from "./round.ts";
import { type CrashMigration, makeMigration, type MigrationKind } from "./workload.ts";

/**
 * Rounds put together by hand, for `npm test`: every fault point once, every kind of fault, in an order in which each
 * is come to. Leases are as long as in production, so that a slow machine loses none; those of the dead are aged.
 */

/** A round with what it shows. */
export interface SelectedRound {
  readonly name: string;
  /** it stops the server, so no other can run there meanwhile */
  readonly needsServer: boolean;
  readonly round: Round;
}

const times: LeaseTimes = { leaseMs: 15_000, heartbeatMs: 300, marginMs: 1_000, cancelPollMs: 100 };

/** Every fault point. */
export function selection(): readonly SelectedRound[] {
  return [
    {
      name: "downloads fail",
      needsServer: false,
      round: makeRound(1, "s3", kinds({ limited: 3, small: 9 }), [
        {
          released: 3,
          faults: [
            at("before:download:head", "kill"),
            at("in:download:head", "truncate"),
            at("before:download:release", "error"),
            at("in:download:release", "reset"),
            at("before:download:manifest", "outage"),
            at("in:download:manifest", "kill"),
            at("before:download:blob", "freeze"),
            at("in:download:blob", "silence"),
          ],
        },
        { released: 12, faults: [at("before:download:pack", "reset"), at("in:download:pack", "kill")] },
      ]),
    },
    {
      name: "runs and transactions are struck",
      needsServer: false,
      round: makeRound(2, "folder", kinds({ limited: 12, small: 3 }), [
        {
          released: 15,
          faults: [
            at("before:state", "kill"),
            at("after:state", "cut"),
            at("before:create-tables", "kill"),
            at("after:create-tables", "terminate"),
            at("before:acquire", "kill"),
            // The first finds no row yet to take.
            at("after:acquire", "power-off", { nth: 2 }),
            at("before:take-over", "kill"),
            at("after:take-over", "freeze", { wakes: "take-over" }),
            at("before:audit", "kill"),
            at("after:audit", "cut"),
            at("before:begin-run", "terminate"),
            at("before:renew-token", "kill"),
            at("after:begin-run", "cut"),
            at("after:renew-token", "kill"),
            at("before:body", "freeze", { wakes: "finish" }),
            at("half:body", "kill"),
            at("in:body", "kill", { lingers: true }),
            at("after:body", "power-off"),
            at("in:commit", "kill"),
            at("in:body", "freeze", { lingers: true, wakes: "take-over" }),
            at("before:heartbeat", "kill"),
            at("after:heartbeat", "freeze", { wakes: "finish" }),
            at("before:cancel-poll", "cut"),
            at("after:cancel-poll", "kill"),
            at("before:finish", "kill"),
            at("after:finish", "cut-all"),
            at("before:release", "kill"),
          ],
        },
      ]),
    },
    {
      name: "messages with many bodies, around which all is prepared, are struck",
      needsServer: false,
      round: makeRound(9, "s3", kinds({ small: 450 }), [
        {
          // A server that is left alone with a message goes on with all of it, or with a part.
          released: 450,
          faults: [
            at("before:prepare", "kill"),
            at("after:prepare", "power-off"),
            at("before:body", "freeze", { nth: 2, wakes: "finish" }),
            at("half:body", "kill", { nth: 2 }),
            at("in:body", "kill", { nth: 2, lingers: true, pick: 30 }),
            at("in:commit", "kill", { nth: 2, pick: 50 }),
            at("after:body", "freeze", { nth: 2, wakes: "take-over" }),
            at("in:body", "cut", { nth: 2, pick: 20 }),
          ],
        },
      ]),
    },
    {
      name: "statements with checkpoints are struck",
      needsServer: false,
      round: makeRound(3, "folder", kinds({ outside: 7, small: 2 }), [
        {
          released: 9,
          faults: [
            at("before:worker-lock", "kill"),
            at("after:worker-lock", "kill"),
            at("before:fence", "kill"),
            at("after:fence", "kill"),
            at("before:start-entry", "kill"),
            at("after:start-entry", "cut"),
            at("before:statement", "kill"),
            at("half:statement", "terminate"),
            at("in:statement", "power-off", { lingers: true }),
            at("after:statement", "silence"),
            at("before:end-entry", "kill"),
            at("after:end-entry", "kill"),
            at("after:release", "kill"),
          ],
        },
      ]),
    },
    {
      name: "statements outside transactions, and backfills, are struck",
      needsServer: false,
      round: makeRound(
        7,
        "folder",
        kinds({ index: 4, vacuum: 1, detach: 1, "drop-index": 1, reindex: 1, setting: 1, backfill: 2 }),
        [
          {
            released: 11,
            faults: [
              at("before:statement-outside", "kill"),
              at("in:statement-outside", "kill", { lingers: true }),
              at("after:statement-outside", "kill"),
              at("before:checkpoint", "kill"),
              at("after:checkpoint", "cut-all"),
              at("in:statement-outside", "power-off"),
              at("in:statement-outside", "terminate", { nth: 2 }),
              at("in:statement-outside", "kill", { nth: 2 }),
              at("before:backfill-range", "kill"),
              at("half:backfill-range", "cut"),
              at("in:backfill-range", "kill"),
              at("after:backfill-range", "power-off"),
            ],
          },
        ],
      ),
    },
    {
      name: "the server is stopped with immediate",
      needsServer: true,
      round: makeRound(4, "folder", kinds({ limited: 4, outside: 2, index: 2, backfill: 1 }), [
        {
          released: 9,
          faults: [
            at("in:body", "immediate-stop", { downMs: 500 }),
            at("in:commit", "kill-backend"),
            at("after:statement", "immediate-stop"),
            at("in:statement-outside", "immediate-stop"),
            at("in:backfill-range", "kill-backend"),
            at("after:finish", "immediate-stop"),
          ],
        },
      ]),
    },
  ];
}

/** Nothing happens to anybody. */
export function undisturbed(): Round {
  const all = kinds({ several: 2, outside: 1, index: 1, backfill: 1 });
  return makeRound(8, "folder", all, [{ released: 5, faults: [] }]);
}

/** A holder frozen before its body was sent: what it sends when it wakes is what a fence is for. */
export function staleMessage(weaken?: (text: string) => string): Round {
  const faults = [at("before:body", "freeze", { wakes: "finish" })];
  return { ...makeRound(5, "folder", kinds({ limited: 4 }), [{ released: 4, faults }]), weaken };
}

/** The same with many bodies in the message, whose fence is one that the server has prepared. */
export function stalePreparedMessage(weaken?: (text: string) => string): Round {
  const faults = [at("before:body", "freeze", { nth: 2, wakes: "finish" })];
  return { ...makeRound(10, "folder", kinds({ wrapped: 60 }), [{ released: 60, faults }]), weaken };
}

/** A holder frozen while its transaction is open: that no one takes over meanwhile is what the index is for. */
export function openTransaction(weaken?: (text: string) => string): Round {
  const faults = [at("in:body", "freeze", { lingers: true, wakes: "finish" })];
  const round = makeRound(6, "folder", kinds({ limited: 4 }), [{ released: 4, faults }]);
  // A second may come to the gate only in the control, and then it ends the wait.
  return { ...round, weaken, lingerMs: weaken === undefined ? round.lingerMs : 60_000 };
}

/** A fence that only gives no row when the lease is lost. */
export function withoutFence(text: string): string {
  return text.replaceAll(
    /SELECT 1 \/ pg_catalog\.count\(\*\) FROM \((SELECT 1 FROM [^()]* FOR KEY SHARE)\) f/g,
    "SELECT 1 FROM ($1) f",
  );
}

/** A lease that is taken over by a plain UPDATE, without the index on the token. */
export function withoutIndex(text: string): string {
  return text
    .replace(/CREATE UNIQUE INDEX IF NOT EXISTS streams_name_token [^;]*;/, "")
    .replace(
      /CASE WHEN (holder IS NULL OR expires_at < pg_catalog\.clock_timestamp\(\))\s+THEN [^]*? ELSE false END\s+FOR UPDATE SKIP LOCKED/,
      "($1)",
    );
}

function kinds(counts: Partial<Record<MigrationKind, number>>): readonly MigrationKind[] {
  return Object.entries(counts).flatMap(([kind, count]) =>
    Array.from({ length: count }, () => kind as MigrationKind),
  );
}

function makeRound(
  seed: number,
  place: Round["place"],
  kinds: readonly MigrationKind[],
  stages: readonly Pick<Stage, "released" | "faults">[],
): Round {
  const random = randomOf(seed);
  const migrations = kinds.map((kind, index): CrashMigration => makeMigration(index + 1, kind, random, seed));
  return {
    seed,
    migrations,
    place,
    stages: stages.map((stage) => ({ ...stage, to: stage.released, runners: 1 })),
    orphans: "wait",
    times,
    isAged: true,
    lingerMs: 500,
  };
}

function at(
  place: `${Moment}:${Point}`,
  kind: FaultKind,
  more: Partial<Pick<Fault, "nth" | "lingers" | "wakes" | "downMs" | "pick">> = {},
): Fault {
  const separator = place.indexOf(":");
  return {
    moment: place.slice(0, separator) as Moment,
    point: place.slice(separator + 1) as Point,
    kind,
    nth: 1,
    lingers: false,
    wakes: "finish",
    downMs: 0,
    pick: 0,
    ...more,
  };
}
