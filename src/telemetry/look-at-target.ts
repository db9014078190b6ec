import type { StreamState } from "../driver/stream-state.ts";
import { isEnded, type RunRecord } from "../history/run.ts";
import type { Target } from "../run/target.ts";
import { readStatus } from "../status/status.ts";
import type { Sample, SeriesName } from "./series.ts";

/** What a look at a target came to. */
export interface Looked {
  readonly samples: readonly Sample[];
  /** what the bucket offers, to be taken again as long as neither it nor the database changes; undefined where it did not answer */
  readonly offered: Offered | undefined;
}

/** What a bucket offers a database. */
interface Offered {
  /** of everything that it depends on */
  readonly key: string;
  readonly at: number;
  /** undefined where the release cannot be used */
  readonly pending: number | undefined;
  /** undefined where nothing signed is offered */
  readonly version: number | undefined;
  readonly isUnusable: boolean;
}

/** A release may expire, or lose who vouches for it, without any change: milliseconds after which it is read again. */
const offeredMs = 5 * 60_000;

/**
 * Looks at one target: three small queries, and a request for the bucket's head. The release itself is read only when
 * one of them says something new.
 *
 * Never throws, and takes no longer than the signal lets it.
 */
export async function lookAtTarget(
  target: Target,
  before: Looked | undefined,
  signal: AbortSignal,
): Promise<Looked> {
  const [said, head] = await Promise.all([
    answered(askDatabase(target, signal), signal),
    answered(target.releases.head(signal), signal),
  ]);
  const key = said === undefined || head === undefined ? undefined : keyOf(said.value.state, head.value);
  const known = before?.offered;
  const isKnown = known !== undefined && known.key === key && performance.now() - known.at < offeredMs;
  const read =
    isKnown || key === undefined ? undefined : await answered(askSource(target, key, signal), signal);
  const offered = isKnown ? known : read?.value;
  const samples = [
    ["lockkeeper_target_up", said === undefined ? 0 : 1],
    ["lockkeeper_source_up", head !== undefined && (said === undefined || offered !== undefined) ? 1 : 0],
    ...(said === undefined ? [] : stateValues(said.value, target)),
    ...(said === undefined || offered === undefined ? [] : offeredValues(offered)),
  ] as const satisfies readonly Value[];
  return {
    samples: samples.map(([name, value]) => ({ name, labels: { target: target.name }, value })),
    offered: offered ?? known,
  };
}

type Value = readonly [SeriesName, number];

/** What a database says of itself. */
interface Said {
  readonly state: StreamState;
  readonly newest: RunRecord | undefined;
  readonly succeeded: RunRecord | undefined;
}

async function askDatabase({ driver, stream, name }: Target, signal: AbortSignal): Promise<Said> {
  const [state, [newest], [succeeded]] = await Promise.all([
    driver.state(stream, signal),
    driver.runs({ target: name, limit: 1 }, signal),
    driver.runs({ target: name, status: "succeeded", limit: 1 }, signal),
  ]);
  return { state, newest, succeeded };
}

function stateValues({ state, newest, succeeded }: Said, { isPaused }: Target): readonly Value[] {
  const version = state.position.version ?? "0";
  // of more digits, two numbers may be one to whoever reads them
  const isNumber = /^\d{1,15}$/.test(version);
  return [
    ["lockkeeper_attention_required", state.unfinished?.status === "needs_attention" ? 1 : 0],
    ["lockkeeper_release_failed", state.failed === null ? 0 : 1],
    ["lockkeeper_held", state.held === null ? 0 : 1],
    ["lockkeeper_paused", state.paused || isPaused === true ? 1 : 0],
    ["lockkeeper_last_run_failed", newest?.status === "failed" ? 1 : 0],
    ["lockkeeper_open_runs", newest !== undefined && !isEnded(newest.status) ? 1 : 0],
    ...(isNumber ? ([["lockkeeper_database_version", Number(version)]] as const) : []),
    ...(succeeded?.endedAt
      ? ([["lockkeeper_last_success_timestamp_seconds", succeeded.endedAt.getTime() / 1000]] as const)
      : []),
  ];
}

function offeredValues({ pending, version, isUnusable }: Offered): readonly Value[] {
  return [
    ["lockkeeper_release_unusable", isUnusable ? 1 : 0],
    ...(pending === undefined ? [] : ([["lockkeeper_pending_migrations", pending]] as const)),
    ...(version === undefined ? [] : ([["lockkeeper_head_version", version]] as const)),
  ];
}

function keyOf({ position, completed, repeatables }: StreamState, head: string | undefined): string {
  return JSON.stringify([head, completed, position, repeatables]);
}

/** Undefined: the bucket did not answer. */
async function askSource(target: Target, key: string, signal: AbortSignal): Promise<Offered | undefined> {
  const { release, pending, problem, stale } = await readStatus(target, {
    signal,
    now: () => new Date(),
    isBrief: true,
  });
  if (problem !== null && (problem.retryable || problem.http === 503)) return undefined;
  const isEmpty = problem?.code === "RELEASE_NOT_FOUND" && release === null;
  return {
    key,
    at: performance.now(),
    pending: problem === null || isEmpty ? pending.length : undefined,
    version: release?.version ?? undefined,
    isUnusable: (problem !== null && !isEmpty) || stale !== null,
  };
}

/** Undefined for what failed, or did not come in time. */
async function answered<T>(
  asked: Promise<T>,
  signal: AbortSignal,
): Promise<{ readonly value: T } | undefined> {
  const late = Promise.withResolvers<undefined>();
  const giveUp = (): void => late.resolve(undefined);
  signal.addEventListener("abort", giveUp, { once: true });
  if (signal.aborted) giveUp();
  try {
    return await Promise.race([
      asked.then(
        (value) => ({ value }),
        () => undefined,
      ),
      late.promise,
    ]);
  } finally {
    signal.removeEventListener("abort", giveUp);
  }
}
