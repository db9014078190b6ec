import { setTimeout as sleep } from "node:timers/promises";
import type { Variables } from "../cli/context.ts";
import type { LogRecord } from "../report/log.ts";
import type { RunObserver } from "../run/observer.ts";
import type { Config } from "./config.ts";

/** Everybody who looks at this process's runs from outside. */
export interface Observers {
  readonly observers: readonly RunObserver[];
  /**
   * Sends what is not sent yet, for `ms` at the most: to be waited for before the process ends, or is frozen.
   * Never throws.
   */
  flush(ms: number): Promise<void>;
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

/** One who looks, and what sends the rest of what it saw. */
interface OpenObserver extends RunObserver {
  flush(ms: number): Promise<void>;
}

/** Nobody. */
export const noObservers: Observers = { observers: [], flush: () => Promise.resolve() };

/** milliseconds for what was not sent when a process ends */
export const lastFlushMs = 2_000;

/** Each says undefined where nothing asks for it, before it loads anything. */
const openers: readonly ((settings: ObserverSettings) => Promise<OpenObserver | undefined>)[] = [];

/**
 * All observers that variables and configuration ask for.
 *
 * @throws RunnerError `CONFIG` - what they ask for cannot be made
 */
export async function openObservers(settings: ObserverSettings): Promise<Observers> {
  const opened = await Promise.all(openers.map((open) => open(settings)));
  const observers = opened.filter((observer) => observer !== undefined);
  if (observers.length === 0) return noObservers;
  return {
    observers,
    async flush(ms) {
      const patience = new AbortController();
      await Promise.race([
        Promise.allSettled(observers.map((observer) => observer.flush(ms))),
        sleep(ms, undefined, { signal: patience.signal }).catch(() => undefined),
      ]);
      patience.abort();
    },
  };
}
