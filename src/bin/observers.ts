import type { Variables } from "../cli/context.ts";
import type { LogRecord } from "../report/log.ts";
import type { RunObserver } from "../run/observer.ts";
import type { Target } from "../run/target.ts";
import type { Config } from "./config.ts";

/** Everybody who looks at this process's runs from outside. */
export interface Observers {
  readonly observers: readonly RunObserver[];
  /**
   * Sends what is not sent yet, for `ms` at the most: to be waited for before the process ends, or is frozen.
   * Never throws.
   */
  flush(ms: number): Promise<void>;
  /**
   * The log that they were opened with, for lines of a server: observers hear them, because requests and events are told
   * nowhere else, and those of a run say where in which trace it is.
   */
  log(record: LogRecord): void;
  /** Has the state of these databases told as well, for as long as the process goes on. */
  watch(targets: Iterable<Target>): void;
}

/** What an observer is made from. */
export interface ObserverSettings {
  readonly variables: Variables;
  /** the configuration file; undefined where the process has none */
  config(): Promise<Config | undefined>;
  /** what an observer has to say of itself, such as a receiver that is away */
  log(record: LogRecord): void;
  /** one run, started by a pipeline: it belongs to the trace of the variable `TRACEPARENT`; default false */
  readonly isOneRun?: boolean;
}

/** One who looks. */
export interface OpenObserver
  extends RunObserver, Pick<Observers, "flush">, Partial<Pick<Observers, "watch">> {
  hear?(record: LogRecord): void;
  /** where in which trace a run of this process is */
  traceOf?(runId: string): Readonly<Record<string, string>>;
}
