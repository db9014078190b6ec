import type { RunObserver } from "../run/observer.ts";

/** Everybody who looks at this process's runs from outside. */
export interface Observers {
  readonly observers: readonly RunObserver[];
  /**
   * Sends what is not sent yet, for `ms` at the most: to be waited for before the process ends, or is frozen.
   * Never throws.
   */
  flush(ms: number): Promise<void>;
}

/** Nobody. */
export const noObservers: Observers = { observers: [], flush: () => Promise.resolve() };
