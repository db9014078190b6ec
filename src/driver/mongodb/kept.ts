import { RunnerError } from "../../error.ts";
import type { DatabaseAccess } from "../access.ts";
import type { Driver } from "../driver.ts";
import { questionsBy } from "../questions.ts";

/**
 * A driver for a URL that is kept elsewhere: read with the first question, and again when the server refuses its user or
 * password. MongoDB's own client logs in for good with what it was opened with, so another one is opened then; what is under
 * way in the former ends there.
 */
export function keptMongo(access: DatabaseAccess, open: (url: string) => Driver): Driver {
  const drivers = new Map<string, Driver>();
  let latest: Driver | undefined;

  const driverAt = (url: string): Driver => {
    const driver = drivers.get(url) ?? open(url);
    drivers.set(url, driver);
    latest = driver;
    return driver;
  };
  /** @param mayRepeat - whether nothing came of the question yet but its refusal */
  async function ask<T>(
    question: (driver: Driver) => Promise<T>,
    mayRepeat: () => boolean = () => true,
  ): Promise<T> {
    const url = await access.url();
    try {
      return await question(driverAt(url));
    } catch (cause) {
      if (!isRefusal(cause) || !mayRepeat()) throw cause;
      const other = await access.url(url);
      if (other === url) throw cause;
      return question(driverAt(other));
    }
  }

  const questions = questionsBy((question) => ask(question));
  return {
    ...questions,
    get url() {
      return latest?.url ?? access.shown;
    },
    withLease(options, work) {
      let isWorking = false;
      return ask(
        (driver) =>
          driver.withLease(options, (session) => {
            isWorking = true;
            return work(session);
          }),
        () => !isWorking,
      );
    },
    foreign: {
      ...questions.foreign,
      withLock(place, options, work) {
        let isWorking = false;
        return ask(
          (driver) =>
            driver.foreign.withLock(place, options, () => {
              isWorking = true;
              return work();
            }),
          () => !isWorking,
        );
      },
    },
    async close() {
      const all = [...drivers.values()];
      drivers.clear();
      await Promise.all(all.map((driver) => driver.close()));
    },
  };
}

/** AuthenticationFailed, and what Atlas says for it. */
const refusals: ReadonlySet<unknown> = new Set([18, 8_000]);

function isRefusal(thrown: unknown): boolean {
  return thrown instanceof RunnerError && refusals.has(thrown.fields["mongoCode"]);
}
