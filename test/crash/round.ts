import type { OrphanPolicy } from "../../src/driver/driver.ts";
import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";
import { drawFault, type Fault } from "./fault.ts";
import { type Random, randomOf } from "./random.ts";
import { type CrashMigration, drawMigrations, kindWeights, type MigrationKind } from "./workload.ts";

/** All that happens in a round, decided before it begins. */
export interface Round {
  readonly seed: number;
  readonly migrations: readonly CrashMigration[];
  /** where the database is to go, one after the other */
  readonly stages: readonly Stage[];
  readonly place: "s3" | "folder";
  readonly orphans: OrphanPolicy;
  readonly times: LeaseTimes;
  /** a lease of the dead is let expire by its row, and not by waiting for it */
  readonly isAged: boolean;
  /** milliseconds that a server works on after its runner was struck, where the fault lingers */
  readonly lingerMs: number;
  /** changes what runners say, to see whether the checker notices a protocol that is too weak */
  readonly weaken?: ((text: string) => string) | undefined;
}

/** One way that the database is to go, and what happens on it. */
export interface Stage {
  /** migrations that are released by then */
  readonly released: number;
  /** migrations that are to be applied in the end; fewer than before: the way down */
  readonly to: number;
  /** runners at once */
  readonly runners: number;
  readonly faults: readonly Fault[];
}

/** Leases short enough for a thousand kills; what is tried is the same as with long ones. */
const shortTimes: LeaseTimes = { leaseMs: 2_500, heartbeatMs: 500, marginMs: 300, cancelPollMs: 250 };

/** In a long release so many share a message that what surrounds them is prepared. */
const longWeights = { small: 2_000, several: 200, wrapped: 200 };

/** The round of a seed; with `kinds`, of these kinds of migrations only. */
export function drawRound(seed: number, kinds: readonly MigrationKind[] = []): Round {
  const random = randomOf(seed);
  const weights = Object.fromEntries(
    Object.entries(kindWeights).filter(([kind]) => kinds.length === 0 || kinds.some((own) => own === kind)),
  );
  const isLong = random.chance(0.2);
  const count = isLong ? random.integer(80, 200) : random.integer(10, 40);
  const migrations = drawMigrations(random, count, seed, isLong ? { ...weights, ...longWeights } : weights);
  const place = random.chance(0.6) ? "s3" : "folder";
  return {
    seed,
    migrations,
    place,
    stages: withFaults(drawWay(random, migrations.length), random, place === "s3"),
    orphans: random.pick(["wait", "cancel"]),
    times: shortTimes,
    isAged: false,
    lingerMs: shortTimes.leaseMs + 1_000,
  };
}

/** Up; up in two releases; or up, down and up again. */
function drawWay(random: Random, count: number): readonly Stage[] {
  const stage = (released: number, to: number): Stage => ({
    released,
    to,
    runners: random.pick([1, 1, 2, 4]),
    faults: [],
  });
  const part = random.integer(1, count - 1);
  switch (random.weighted({ up: 5, twice: 2, down: 3 })) {
    case "up":
      return [stage(count, count)];
    case "twice":
      return [stage(part, part), stage(count, count)];
    case "down":
      return [stage(count, count), stage(count, part), stage(count, count)];
  }
}

function withFaults(stages: readonly Stage[], random: Random, hasBucket: boolean): readonly Stage[] {
  const faults: Fault[][] = stages.map(() => []);
  const count = random.integer(1, 3);
  for (let n = 0; n < count; n += 1) {
    const at = faults[random.integer(0, stages.length - 1)];
    at?.push(drawFault(random, { isFirst: at.length === 0, hasBucket }));
  }
  return stages.map((stage, index) => ({ ...stage, faults: faults[index] ?? [] }));
}
