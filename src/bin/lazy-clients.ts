import type { Driver } from "../driver/driver.ts";
import { questionsBy } from "../driver/questions.ts";
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
    ...questionsBy(async (question) => question(await opened.get())),
    get url() {
      return opened.now()?.url ?? shown;
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
