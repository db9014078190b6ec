import { isDownload, type Moment, momentsOf, type Point } from "./point.ts";
import type { Random } from "./random.ts";

/** What happens to a run on its way to the database. */
export type DatabaseFault =
  /** SIGKILL of the runner; the kernel closes its connections */
  | "kill"
  /** SIGKILL of the runner, and nobody tells the server: its machine is gone */
  | "power-off"
  /** SIGSTOP until another runner has taken over, then SIGCONT */
  | "freeze"
  /** the connection ends */
  | "cut"
  /** all of the runner's connections end */
  | "cut-all"
  /** nothing passes on the connection any more, and nobody says so */
  | "silence"
  /** nothing passes any more between the runner and the database, new connections included */
  | "silence-all"
  /** `pg_terminate_backend` */
  | "terminate"
  /** SIGKILL of the backend, which makes PostgreSQL end all of them and recover */
  | "kill-backend"
  /** PostgreSQL stopped with `immediate` and started again */
  | "immediate-stop";

/** What happens to a run on its way to the bucket. */
export type BucketFault =
  | "kill"
  | "freeze"
  /** the connection is reset */
  | "reset"
  /** the connection ends as if all had been sent */
  | "truncate"
  /** one answer of 500 */
  | "error"
  /** 503 to everything until the runner has ended */
  | "outage"
  /** nothing more comes, and nobody says so */
  | "silence";

/** What happens at a fault point. */
export type FaultKind = DatabaseFault | BucketFault;

/** One fault, as a seed decides it. */
export interface Fault {
  readonly point: Point;
  readonly moment: Moment;
  readonly kind: FaultKind;
  /** at which passing of the point, 1 for the first; counted over all runners that are under way together */
  readonly nth: number;
  /** the server works on for longer than the lease after the runner was struck (`in` only) */
  readonly lingers: boolean;
  /** when a frozen process goes on: once another has the lease, or once that one has finished too */
  readonly wakes: "take-over" | "finish";
  /** milliseconds that a stopped PostgreSQL stays away */
  readonly downMs: number;
  /** picks among what a message holds */
  readonly pick: number;
}

/** How often each point is chosen. */
const pointWeights: Readonly<Record<Point, number>> = {
  prepare: 2,
  body: 12,
  commit: 6,
  statement: 10,
  "statement-outside": 14,
  "backfill-range": 8,
  checkpoint: 8,
  "start-entry": 4,
  "end-entry": 4,
  fence: 4,
  "worker-lock": 3,
  acquire: 5,
  "take-over": 8,
  "renew-token": 3,
  audit: 4,
  "begin-run": 5,
  finish: 6,
  release: 5,
  heartbeat: 5,
  "cancel-poll": 2,
  state: 4,
  "create-tables": 2,
  "download:head": 3,
  "download:release": 3,
  "download:manifest": 3,
  "download:pack": 3,
  "download:blob": 3,
};

const databaseWeights: Readonly<Record<DatabaseFault, number>> = {
  kill: 10,
  "power-off": 4,
  freeze: 6,
  cut: 4,
  "cut-all": 3,
  silence: 2,
  "silence-all": 3,
  terminate: 2,
  "kill-backend": 2,
  "immediate-stop": 3,
};

const bucketWeights: Readonly<Record<BucketFault, number>> = {
  kill: 6,
  freeze: 3,
  reset: 3,
  truncate: 2,
  error: 2,
  outage: 2,
  silence: 1,
};

/** Points that a run passes many times. */
const repeated: ReadonlySet<Point> = new Set<Point>([
  "body",
  "commit",
  "statement",
  "statement-outside",
  "backfill-range",
  "checkpoint",
  "start-entry",
  "end-entry",
  "heartbeat",
  "state",
]);

/** Draws a fault; `first` is one that nothing has gone before, so there is no lease to take over and no lost connection. */
export function drawFault(
  random: Random,
  round: { readonly isFirst: boolean; readonly hasBucket: boolean },
): Fault {
  const weights: Partial<Record<Point, number>> = Object.fromEntries(
    Object.entries(pointWeights).filter(([name]) => {
      const point = name as Point;
      if (round.isFirst && (point === "take-over" || point === "renew-token")) return false;
      return round.hasBucket || !isDownload(point);
    }),
  );
  const point = random.weighted(weights);
  return {
    point,
    moment: random.pick(momentsOf[point]),
    kind: isDownload(point) ? random.weighted(bucketWeights) : random.weighted(databaseWeights),
    nth: repeated.has(point) ? random.pick([1, 1, 1, 2, 2, 3, 4, 6]) : 1,
    lingers: random.chance(0.3),
    wakes: random.pick(["take-over", "finish"]),
    downMs: random.pick([0, 200, 1_500, 4_000]),
    pick: random.integer(0, 1_000),
  };
}

/** `in:body`, as reports name it. */
export function placeOf({ moment, point }: Pick<Fault, "moment" | "point">): string {
  return `${moment}:${point}`;
}

/** One line for a person. */
export function describeFault(fault: Fault): string {
  const more = [
    fault.nth === 1 ? [] : `at passing ${fault.nth}`,
    fault.moment === "in" && fault.lingers ? "the server works on past the lease" : [],
    fault.kind === "freeze" ? `until ${fault.wakes}` : [],
    fault.kind === "immediate-stop" ? `down for ${fault.downMs} ms` : [],
  ].flat();
  return `${fault.kind} ${placeOf(fault)}${more.length === 0 ? "" : ` (${more.join(", ")})`}`;
}
