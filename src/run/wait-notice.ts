import type { Orphan } from "../driver/driver.ts";
import type { LeaseHolder } from "../driver/stream-state.ts";
import type { Emit } from "../executor/event.ts";

/** milliseconds between two notices that a run waits for the same thing */
const noticeMs = 5_000;

/** Says what a run waits for: when it changes and now and then, not at every look. */
export class WaitNotice {
  readonly #emit: Emit;
  #holder: { readonly runId: string; readonly at: number } | undefined;
  #orphan: (Pick<Orphan, "pid" | "isCanceled"> & { readonly at: number }) | undefined;

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  /** @returns whether it is the first that the run waits for */
  holder({ holder, runId, acquiredAt }: LeaseHolder): boolean {
    const now = performance.now();
    const told = this.#holder;
    if (runId === told?.runId && now - told.at < noticeMs) return false;
    this.#holder = { runId, at: now };
    this.#emit({ kind: "lease.waiting", holder, runId, since: acquiredAt });
    return told === undefined;
  }

  /** A statement of a dead run is in the way. */
  orphan(orphan: Orphan): void {
    const now = performance.now();
    const { pid, isCanceled } = orphan;
    const told = this.#orphan;
    const isKnown = told?.pid === pid && told.isCanceled === isCanceled;
    if (isKnown && now - told.at < noticeMs) return;
    this.#orphan = { pid, isCanceled, at: now };
    this.#emit({ kind: "orphan.waiting", ...orphan });
  }
}
