/** Seconds; a release with one index over a large table takes hours, and nothing at all takes a tenth. */
const runBuckets = [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400] as const;
const waitBuckets = [0.01, 0.1, 1, 5, 15, 60, 300, 600] as const;
const requestBuckets = [0.005, 0.025, 0.1, 0.5, 1, 5, 30] as const;

/**
 * Everything that is counted and measured, as Prometheus names it. Labels have few values by construction: names of the
 * configuration, words of this program, routes. No id of a run, a release or a migration is ever one.
 */
export const series = {
  lockkeeper_runs_total: {
    kind: "counter",
    labels: ["target", "trigger", "outcome"],
    help: "Runs that ended in this process. outcome: applied, noop, rolled_back, refused, failed, needs_attention, canceled.",
  },
  lockkeeper_runs_handed_over_total: {
    kind: "counter",
    labels: ["target"],
    help: "Runs that this process left to another executor before their end.",
  },
  lockkeeper_run_duration_seconds: {
    kind: "histogram",
    labels: ["target"],
    buckets: runBuckets,
    help: "From a run's begin in this process to its end.",
  },
  lockkeeper_lock_wait_seconds: {
    kind: "histogram",
    labels: ["target"],
    buckets: waitBuckets,
    help: "From asking for a target's lease to having it.",
  },
  lockkeeper_migrations_applied_total: {
    kind: "counter",
    labels: ["target", "kind"],
    help: "Migrations done by this process. kind: up, down, repeatable.",
  },
  lockkeeper_release_refused_total: {
    kind: "counter",
    labels: ["reason"],
    help: "Runs that were refused before they changed anything, by the code of the error.",
  },
  lockkeeper_events_total: {
    kind: "counter",
    labels: ["provider", "result"],
    help: "Events that woke this process. result: run, up-to-date, left-alone, unreachable, nobody, nothing, test, unknown.",
  },
  lockkeeper_http_requests_total: {
    kind: "counter",
    labels: ["method", "route", "status"],
    help: "HTTP requests answered.",
  },
  lockkeeper_http_request_duration_seconds: {
    kind: "histogram",
    labels: ["method", "route"],
    buckets: requestBuckets,
    help: "From a request's arrival to its answer's begin.",
  },
  lockkeeper_target_up: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where the target's database answers; else all other gauges of the target but source_up are absent.",
  },
  lockkeeper_source_up: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where the target's bucket or folder answers; else what is pending is not known.",
  },
  lockkeeper_pending_migrations: {
    kind: "gauge",
    labels: ["target"],
    help: "Migrations of the newest release that the database has not.",
  },
  lockkeeper_head_version: {
    kind: "gauge",
    labels: ["target"],
    help: "Number of the newest signed release in the bucket.",
  },
  lockkeeper_database_version: {
    kind: "gauge",
    labels: ["target"],
    help: "Version of the newest migration in the database, where that is a number; 0 before the first.",
  },
  lockkeeper_release_unusable: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where the newest release in the bucket would be refused: not signed as it should be, expired, older than the database, rewritten.",
  },
  lockkeeper_last_success_timestamp_seconds: {
    kind: "gauge",
    labels: ["target"],
    help: "When the newest recorded run that succeeded ended, whoever executed it. Runs without anything to do leave no record.",
  },
  lockkeeper_last_run_failed: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where the newest recorded run failed, whoever executed it.",
  },
  lockkeeper_open_runs: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where a run of the target has not ended, here or elsewhere.",
  },
  lockkeeper_attention_required: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where a person has to say whether a migration took effect: nothing else runs before that.",
  },
  lockkeeper_release_failed: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where the newest release failed on this database, and is not tried again by itself.",
  },
  lockkeeper_held: {
    kind: "gauge",
    labels: ["target"],
    help: "1 after a rollback, until a newer release or a person comes.",
  },
  lockkeeper_paused: {
    kind: "gauge",
    labels: ["target"],
    help: "1 where no run begins, by the configuration or by lockkeeper pause.",
  },
  lockkeeper_build_info: {
    kind: "gauge",
    labels: ["version", "node"],
    help: "1; which program this is.",
  },
  process_cpu_seconds_total: {
    kind: "counter",
    labels: [],
    help: "Processor time of this process, user and system.",
  },
  process_resident_memory_bytes: { kind: "gauge", labels: [], help: "Memory of this process." },
  process_start_time_seconds: { kind: "gauge", labels: [], help: "When this process began." },
  nodejs_eventloop_utilization_ratio: {
    kind: "gauge",
    labels: [],
    help: "Share of the time since the process began in which its one thread was busy.",
  },
} as const satisfies Readonly<Record<string, Series>>;

/** One thing that is measured. */
export type Series =
  | { readonly kind: "counter" | "gauge"; readonly labels: readonly string[]; readonly help: string }
  | {
      readonly kind: "histogram";
      readonly labels: readonly string[];
      readonly help: string;
      /** upper bounds, growing; above the last is another one without end */
      readonly buckets: readonly number[];
    };

/** A name of {@link series}. */
export type SeriesName = keyof typeof series;

/** A value for each of a series' labels. */
export type Labels<Name extends SeriesName> = Readonly<
  Record<(typeof series)[Name]["labels"][number], string>
>;

/** Series that add up in this process. */
export type EventSeries = {
  [Name in SeriesName]: (typeof series)[Name]["kind"] extends "gauge" ? never : Name;
}[SeriesName];

/** Takes what happens: one more, or one measurement. */
export interface Recorder {
  record<Name extends EventSeries>(name: Name, labels: Labels<Name>, value: number): void;
}

/** One value now. */
export interface Sample {
  readonly name: SeriesName;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}
