import type { Emit, RunEvent } from "../executor/event.ts";
import { formatDuration } from "./duration.ts";
import { harmlessJson } from "./harmless-json.ts";
import { redactText } from "./redact.ts";
import type { Reporter, Sink } from "./sink.ts";

/** Between two lines of progress, milliseconds: ten thousand uploads are no ten thousand lines. */
const progressMs = 1_000;

/** The same for a backfill, which may go on for a day; the last one is always told. */
const backfillMs = 10_000;

/** One JSON object a line, for programs: `{"at":"…","kind":"step.succeeded",…}`. */
export function jsonLines(sink: Sink, now: () => Date): Reporter {
  const write = (line: object): void => {
    const json = JSON.stringify({ at: now().toISOString(), ...line }, redactValue);
    sink.write(`${harmlessJson(json)}\n`);
  };
  return {
    emit: write,
    progress: seldom(
      () => now().getTime(),
      (done, total, current) => write({ kind: "progress", done, total, current }),
    ),
    end: () => undefined,
  };
}

/** One line of words for each thing that happened, for logs. */
export function plainLines(sink: Sink, isVerbose: boolean, now: () => number): Reporter {
  let backfillAt = -Infinity;
  return {
    emit(event) {
      if (event.kind === "backfill.progress" && event.fraction !== 1) {
        if (now() - backfillAt < backfillMs) return;
        backfillAt = now();
      }
      const line = describeEvent(event, isVerbose);
      if (line !== undefined) sink.write(`${redactText(line)}\n`);
    },
    progress: seldom(now, (done, total, current) =>
      sink.write(`${describeProgress(done, total, current)}\n`),
    ),
    end: () => undefined,
  };
}

/** Between two lines that say whom a run waits for, milliseconds; the lease is asked for several times a second. */
const waitingMs = 15_000;

/** Leaves out that the same holder is still waited for, unless it was long since that was told. */
export function withoutRepeats(emit: Emit, now: () => number): Emit {
  let told: { readonly runId: string; readonly at: number } | undefined;
  return (event) => {
    if (event.kind === "lease.waiting") {
      if (told?.runId === event.runId && now() - told.at < waitingMs) return;
      told = { runId: event.runId, at: now() };
    }
    emit(event);
  };
}

/** Lets a call through when the last one is long enough ago, and always the one that says that all is done. */
function seldom(now: () => number, show: Reporter["progress"]): Reporter["progress"] {
  let shownAt = -Infinity;
  return (done, total, current) => {
    if (done < total && now() - shownAt < progressMs) return;
    shownAt = now();
    show(done, total, current);
  };
}

/** `3/7 done, running 000004_orders.up.sql` */
function describeProgress(done: number, total: number, current: string | null): string {
  return `${done}/${total} done${current === null ? "" : `, running ${current}`}`;
}

/** What happened, in words; undefined where it is only of interest with `--verbose`. */
export function describeEvent(event: RunEvent, isVerbose: boolean): string | undefined {
  switch (event.kind) {
    case "lease.waiting":
      return `waiting for ${event.holder}, which has the lease since ${event.since.toISOString()} (run ${event.runId})`;
    case "dependency.waiting":
      return `waiting for the service ${event.service} (target ${event.target}): ${event.path} needs its version ${event.minVersion}, ${event.problem ?? `and it is at ${event.version ?? "0"}`}`;
    case "orphan.waiting":
      return `waiting for a statement of an earlier run that the server still works on, since ${event.since.toISOString()} (backend ${event.pid}${event.isCanceled ? ", told to stop" : ""})`;
    case "statement.probed":
      return `${event.path} statement ${event.statement}/${event.statements}: ${probed[event.verdict]}`;
    case "backfill.progress":
      return describeBackfill(event);
    case "step.succeeded": {
      const did = event.direction === "up" ? "applied" : "taken back";
      return `${event.path} ${did} in ${formatDuration(event.durationMs)} (${event.done}/${event.total})`;
    }
    case "step.retried":
      return `${event.path} ${passing[event.sqlstate] ?? "lost its connection"}${event.blocker === null ? "" : ` (held by ${event.blocker})`}: try ${event.attempt + 1} in ${formatDuration(event.delayMs)}`;
    case "step.output":
      return `${event.path}: ${event.line}`;
    case "backup.started":
      return `backup begins: ${event.by}`;
    case "backup.output":
      return `backup: ${event.line}`;
    case "backup.done":
      return event.result === "done"
        ? `backup made in ${formatDuration(event.durationMs)}`
        : `backup ${event.result} after ${formatDuration(event.durationMs)}`;
    case "rollback.started":
      return `taking back what the run has applied, to version ${event.to ?? "0"} (${event.steps} ${event.steps === 1 ? "step" : "steps"})`;
    case "warning":
      return `warning: ${event.message}`;
    // the result tells it with all that is known; here it would stand twice
    case "step.failed":
      return undefined;
    case "run.started":
    case "release.verified":
    case "plan.made":
    case "bodies.fetched":
    case "lease.acquired":
    case "step.started":
    case "statement.done":
    case "audit":
    case "run.done":
      return isVerbose ? describeDetail(event) : undefined;
  }
}

/** What a body met that may be gone at its next try, by SQLSTATE. */
const passing: Readonly<Record<string, string>> = {
  "55P03": "did not get a lock in time and gave way",
  "40P01": "was in a deadlock",
  "40001": "clashed with another transaction",
};

/** What was found of a statement whose outcome nobody knew. */
const probed = {
  done: "an earlier run was cut off here; it had taken effect",
  "not-done": "an earlier run was cut off here; it had not taken effect and runs again",
  cleared: "an earlier run was cut off here; what it left was cleared away, and it runs again",
} as const satisfies Record<Extract<RunEvent, { kind: "statement.probed" }>["verdict"], string>;

function describeBackfill(event: Extract<RunEvent, { kind: "backfill.progress" }>): string {
  const share = event.fraction === null ? "" : `, ${Math.floor(event.fraction * 100)} %`;
  const left = event.secondsLeft === null ? "" : `, ${formatDuration(event.secondsLeft * 1000)} left`;
  const throttled = event.isThrottled ? ", waiting until the database is less busy" : "";
  return `${event.path} ${event.rows} rows${share}, ${Math.round(event.rowsPerSecond)} rows/s${left}${throttled}`;
}

type Detail = Extract<
  RunEvent,
  {
    kind:
      | "run.started"
      | "release.verified"
      | "plan.made"
      | "bodies.fetched"
      | "lease.acquired"
      | "step.started"
      | "statement.done"
      | "audit"
      | "run.done";
  }
>;

function describeDetail(event: Detail): string {
  switch (event.kind) {
    case "run.started":
      return `run ${event.runId} on ${event.target}`;
    case "release.verified":
      return `release ${event.digest}: ${event.migrations} migrations, ${event.signers.length} signatures counted`;
    case "plan.made":
      return `plan ${event.digest}: ${event.steps} steps from ${event.from ?? "0"} to ${event.to ?? "0"}`;
    case "bodies.fetched":
      return `${event.count} bodies fetched and verified, ${event.bytes} bytes`;
    case "lease.acquired":
      return `lease acquired, fencing token ${event.token}`;
    case "step.started":
      return `${event.path} begins (${event.index + 1}/${event.total})`;
    case "statement.done":
      return `${event.path} statement ${event.statement}/${event.statements} done`;
    case "audit":
      return `audit entry ${event.seq}:${event.sha256}`;
    case "run.done":
      return `run ${event.runId} ${event.status}${event.outcome === null ? "" : `, ${event.outcome}`}`;
  }
}

function redactValue(_: string, value: unknown): unknown {
  return typeof value === "string" ? redactText(value) : value;
}
