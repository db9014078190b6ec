import type * as v from "valibot";
import type { Emit } from "../executor/event.ts";
import { historySchema, leaseSchema } from "./remote-run.ts";
import type { RemoteEntry, RemoteRun } from "./remote-run.ts";
import type { Patience, RemoteServer } from "./remote-server.ts";

/** Who is told of a run of a server's. */
export interface Listener {
  /** told what happens, as a run of this process would tell it */
  readonly emit: Emit;
  onProgress(run: RemoteRun): void;
}

/** Pages of history that are read at one look; the next one goes on. */
const maxPages = 100;
/** What is only shown is not worth a second try. */
const once: Patience = { attempts: 1, outageMs: 0, refusals: 1 };
/** Milliseconds between two looks at who has the lease. */
const leaseLookMs = 10_000;

/**
 * Tells of a run, each time it was looked at, what is new; gives all of its entries that are done. What it asks the
 * server besides is only told: where there is no answer, nothing is missing but words.
 */
export function makeTeller(
  server: RemoteServer,
  target: string,
  { emit, onProgress, signal }: Listener & { readonly signal: AbortSignal },
): (run: RemoteRun) => Promise<readonly RemoteEntry[]> {
  const entries: RemoteEntry[] = [];
  let counted = 0;
  let lookedAt = -Infinity;
  const path = `/v1/targets/${encodeURIComponent(target)}`;
  const ask = async <T>(where: string, answer: v.GenericSchema<unknown, T>): Promise<T | undefined> => {
    try {
      return await server.send({ path: where, answer, patience: once }, signal);
    } catch {
      signal.throwIfAborted();
      return undefined;
    }
  };
  const readEntries = async (run: RemoteRun): Promise<void> => {
    for (let pages = 0; pages < maxPages; pages += 1) {
      const last = entries.at(-1)?.id ?? 0;
      const query = new URLSearchParams({ run: run.id, pageToken: String(last) });
      const page = await ask(`${path}/history?${query.toString()}`, historySchema);
      const under = page?.history.findIndex(({ status }) => status === "started") ?? -1;
      const told = page?.history.slice(0, under === -1 ? undefined : under) ?? [];
      const news = told.filter(({ id }) => id > last);
      for (const entry of news) {
        entries.push(entry);
        if (entry.status !== "done" || entry.origin === "covered") continue;
        counted += 1;
        const { version, direction, durationMs } = entry;
        const total = Math.max(run.progress.total, counted);
        emit({
          kind: "step.succeeded",
          path: entry.path,
          version,
          direction,
          durationMs,
          done: counted,
          total,
        });
      }
      if (page?.nextPageToken === null || news.length === 0 || under !== -1) return;
    }
  };
  return async (run) => {
    if (run.done || run.progress.applied > counted) await readEntries(run);
    if (run.status === "waiting_lock" && performance.now() - lookedAt > leaseLookMs) {
      lookedAt = performance.now();
      const lease = (await ask(path, leaseSchema))?.lease;
      if (lease !== undefined && lease !== null && lease.run !== run.id) {
        emit({ kind: "lease.waiting", holder: lease.holder, runId: lease.run, since: lease.acquiredAt });
      }
    }
    onProgress(run);
    return entries;
  };
}
