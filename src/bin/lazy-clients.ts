import type { Driver } from "../driver/driver.ts";
import type { ReleaseProvider } from "../release/release.ts";

/**
 * A driver that is opened with its first question, also its first after it was closed. A failure to open is that question's
 * failure, and the next one tries again.
 *
 * @param shown - its URL for people, until it is open
 */
export function lazyDriver(shown: string, open: () => Promise<Driver>): Driver {
  const opened = onceOpen(open);
  return {
    get url() {
      return opened.now()?.url ?? shown;
    },
    state: async (...given) => (await opened.get()).state(...given),
    history: async (...given) => (await opened.get()).history(...given),
    withLease: async (...given) => (await opened.get()).withLease(...given),
    acceptRun: async (...given) => (await opened.get()).acceptRun(...given),
    spendUse: async (...given) => (await opened.get()).spendUse(...given),
    run: async (...given) => (await opened.get()).run(...given),
    runs: async (...given) => (await opened.get()).runs(...given),
    pickUpRuns: async (...given) => (await opened.get()).pickUpRuns(...given),
    audit: {
      append: async (...given) => (await opened.get()).audit.append(...given),
      read: async (...given) => (await opened.get()).audit.read(...given),
    },
    roots: async (...given) => (await opened.get()).roots(...given),
    setPaused: async (...given) => (await opened.get()).setPaused(...given),
    resetTrust: async (...given) => (await opened.get()).resetTrust(...given),
    updateRun: async (...given) => (await opened.get()).updateRun(...given),
    requestCancel: async (...given) => (await opened.get()).requestCancel(...given),
    unlock: async (...given) => (await opened.get()).unlock(...given),
    foreign: {
      tables: async (...given) => (await opened.get()).foreign.tables(...given),
      rows: async (...given) => (await opened.get()).foreign.rows(...given),
      begin: async (...given) => (await opened.get()).foreign.begin(...given),
      withLock: async (...given) => (await opened.get()).foreign.withLock(...given),
    },
    close: async () => (await opened.forget())?.close(),
  };
}

/** Releases whose source and trust are opened with the first question. */
export function lazyReleases(
  known: Pick<ReleaseProvider, "kind" | "stream" | "url">,
  open: () => Promise<ReleaseProvider>,
): ReleaseProvider {
  const opened = onceOpen(open);
  return {
    ...known,
    head: async (...given) => (await opened.get()).head(...given),
    fetch: async (...given) => (await opened.get()).fetch(...given),
    bodies: async (...given) => (await opened.get()).bodies(...given),
  };
}

/** What is opened when it is first wanted, and then kept. */
export function onceOpen<T>(open: () => Promise<T>): {
  /** @throws what `open` throws; the next call tries again */
  get(): Promise<T>;
  /** undefined while it is not open */
  now(): T | undefined;
  /** Gives what is open, or is being opened, away; the next call opens anew. */
  forget(): Promise<T | undefined>;
} {
  let value: T | undefined;
  let opening: Promise<T> | undefined;
  return {
    async get() {
      const current = (opening ??= open());
      try {
        const opened = await current;
        if (opening === current) value = opened;
        return opened;
      } catch (cause) {
        if (opening === current) opening = undefined;
        throw cause;
      }
    },
    now: () => value,
    async forget() {
      const opened = opening;
      opening = undefined;
      value = undefined;
      return opened?.catch(() => undefined);
    },
  };
}
