import { RunnerError, toRunnerError } from "../error.ts";
import type { RunEvent } from "../executor/event.ts";
import type { Look } from "../run/request.ts";
import { run, type RunOptions, type RunRequest, type Target } from "../runner.ts";
import { requestOf } from "../run/order.ts";
import { originOf } from "../report/origin.ts";
import { recordOf, type LogRecord } from "../report/log.ts";
import { existingOf, replayed, runOf, type Begun, type RunOrder } from "./begun.ts";
import type { HandOver } from "./hand-over.ts";
import { Noops } from "./noops.ts";
import { OpenRuns } from "./open-runs.ts";
import { within } from "./patience.ts";

/** Milliseconds to record a request, or an end. */
const acceptMs = 10_000;

/** What the runs of a process need, and what it has for them. */
export interface ActiveRunsOptions {
  /** runs of one target open at once */
  readonly perTarget: number;
  /** aborts when the process is to stop: its runs are handed over at their next safe point */
  readonly signal: AbortSignal;
  /** who goes on with runs that are handed over; absent: whoever looks next */
  readonly handOver?: HandOver;
  /** runs begin in an execution of their own, because this process may end with its answer; needs `handOver`; default false */
  readonly beginsElsewhere?: boolean;
  /** milliseconds that this process has left for a run, at least 1, asked as it starts; absent: as long as it takes */
  executorMs?(): number;
  log(record: LogRecord): void;
  now(): Date;
}

/** One run of this process, while it lasts. */
interface ActiveRun {
  readonly target: string;
  readonly abort: AbortController;
  ended: Promise<void>;
  /** resolved and replaced at every event */
  change: PromiseWithResolvers<void>;
}

/**
 * The runs that this process executes. They outlive the request that asked for them: a client that hangs up cancels nothing.
 * They outlive the process as well: one that stops hands them over, and one that dies leaves them to be picked up.
 *
 * Runs of one target wait for each other by the database's lease, here as among processes; so there is no queue of our
 * own that another process could not see. What is bounded is how many may wait.
 */
export class ActiveRuns {
  readonly #runs = new Map<string, ActiveRun>();
  /** requests that began a run, by what they want, until that run ends */
  readonly #begun = new Map<string, Promise<Begun>>();
  readonly #open: OpenRuns;
  /** ends of runs that did not begin, on their way to the database */
  readonly #ends = new Set<Promise<void>>();
  /** fires when the server stops */
  readonly #handOver = new AbortController();
  readonly #options: ActiveRunsOptions;
  readonly #noops: Noops;

  constructor(options: ActiveRunsOptions) {
    this.#options = options;
    this.#open = new OpenRuns(options.perTarget);
    this.#noops = new Noops({ now: options.now, emitOf: (runId, target) => this.#emitOf(runId, target) });
    const stop = (): void =>
      this.#handOver.abort(
        new RunnerError("HANDED_OVER", "the server that executed the run is stopping", {
          hint: "nothing to do: the next server goes on with it",
        }),
      );
    if (options.signal.aborted) stop();
    else options.signal.addEventListener("abort", stop, { once: true });
  }

  /**
   * Records the request in the target's database and begins its run, or finds the run that an equal request began.
   *
   * @throws RunnerError `REPLAY`, `IDEMPOTENCY_MISMATCH`, `RATE_LIMITED` when too many runs of the target are open here, `AUDIT_UNAVAILABLE`, `DATABASE_…`
   */
  async begin(order: RunOrder, target: Target): Promise<Begun> {
    const { sameAs } = order;
    if (sameAs === null) return this.#begin(order, target);
    const pending = this.#earlier(sameAs);
    // No `await` where there is none: of two equal requests at once, one has to see the other's promise.
    const earlier = pending === undefined ? undefined : await pending;
    if (earlier !== undefined) {
      await this.#spend(order, runOf(earlier), target);
      await order.recordAllowed(runOf(earlier), false);
      return earlier;
    }
    const begun = this.#begin(order, target);
    this.#begun.set(sameAs, begun);
    const forget = (): void => {
      if (this.#begun.get(sameAs) === begun) this.#begun.delete(sameAs);
    };
    begun.then((result) => this.ended(runOf(result))).then(forget, forget);
    return begun;
  }

  /** Who joins a run that another token began has used its own for that, and for nothing else. */
  async #spend({ record }: RunOrder, runId: string, { driver }: Target): Promise<void> {
    const { singleUse, bodyDigest } = record;
    if (singleUse === null || bodyDigest === null) return;
    const isOurs = await within(acceptMs, (signal) =>
      driver.spendUse({ ...singleUse, bodyDigest, runId }, signal),
    );
    if (!isOurs) throw replayed();
  }

  /** What an equal request has begun, and is not being canceled; decided without a pause when there is none. */
  #earlier(sameAs: string): Promise<Begun | undefined> | undefined {
    const isWanted = (found: Begun): boolean =>
      "run" in found || this.#runs.get(found.runId)?.abort.signal.aborted !== true;
    return this.#begun.get(sameAs)?.then(
      (found) => (isWanted(found) ? found : undefined),
      () => undefined,
    );
  }

  /** Resolves when a run of this process has ended; at once for any other. */
  ended(runId: string): Promise<void> {
    return this.#runs.get(runId)?.ended ?? Promise.resolve();
  }

  /** Whether this process executes the run. */
  has(runId: string): boolean {
    return this.#runs.has(runId);
  }

  /** Resolves at the run's next event, or when it has ended; undefined for a run of another process. */
  changed(runId: string): Promise<void> | undefined {
    return this.#runs.get(runId)?.change.promise;
  }

  /** Stops a run of this process at its next safe point, without waiting for the next look at the database. */
  cancel(runId: string, reason: string): void {
    this.#runs.get(runId)?.abort.abort(new RunnerError("CANCELED", reason));
  }

  /**
   * Goes on with runs of a target that nobody works on any more, and says of its own that it still does: to be called
   * well within the 45 s that a claim lasts.
   *
   * @throws RunnerError `DATABASE_…`
   */
  async pickUp(target: Target): Promise<void> {
    if (this.#options.signal.aborted) return;
    const own = [...this.#runs].filter(([, active]) => active.target === target.name).map(([id]) => id);
    const limit = this.#open.left(target);
    const picked = await within(acceptMs, (signal) =>
      target.driver.pickUpRuns({ target: target.name, own, limit }, signal),
    );
    for (const one of picked) {
      const { id, attempt } = one.run;
      const fields = { run: id, target: target.name, attempt };
      try {
        const request = requestOf(one);
        this.#options.log({ level: "info", event: "run.continued", fields });
        this.#start(request, target, this.#open.add(target));
      } catch (thrown) {
        const { code, message } = toRunnerError(thrown);
        this.#options.log({ level: "error", event: "run.unread", fields: { ...fields, code, message } });
      }
    }
  }

  /** No run is under way in this process. */
  get isIdle(): boolean {
    return this.#runs.size === 0;
  }

  /**
   * Resolves when no run is left, and no end that is still to be recorded; runs are handed over by the signal given to the
   * constructor, or end in their own time.
   */
  async drained(): Promise<void> {
    while (this.#runs.size + this.#ends.size > 0)
      await Promise.all([...[...this.#runs.values()].map((active) => active.ended), ...this.#ends]);
  }

  async #begin(order: RunOrder, target: Target): Promise<Begun> {
    const { request, record, recordAllowed } = order;
    if (this.#options.signal.aborted)
      throw new RunnerError("STOPPING", "this server is stopping and takes no new runs");
    const elsewhere = this.#options.beginsElsewhere === true ? this.#options.handOver : undefined;
    const release = this.#open.addWithin(target);
    let isAccepted = false;
    try {
      const { looked, begun } = await this.#noops.begin(order, target);
      if (begun !== undefined) {
        if (begun.kind === "existing") await recordAllowed(runOf(begun), false);
        release();
        return begun;
      }
      const wanted = elsewhere === undefined ? record : { ...record, isUnclaimed: true };
      const accepted = await within(acceptMs, (signal) => target.driver.acceptRun(wanted, signal));
      if (accepted.kind === "accepted") {
        isAccepted = true;
        await recordAllowed(request.id, true);
        if (elsewhere !== undefined) {
          await elsewhere.start(target.name);
          release();
          return { kind: "elsewhere", runId: request.id };
        }
        this.#start(request, target, release, looked);
        return { kind: "here", runId: request.id };
      }
      // existing, or refused: nothing begins
      const earlier = existingOf(accepted);
      await recordAllowed(runOf(earlier), false);
      release();
      return earlier;
    } catch (thrown) {
      release();
      const error = toRunnerError(thrown);
      // What was accepted and may not begin would be picked up. And no answer is not a no: it may be recorded all the same.
      if (isAccepted || error.retryable) {
        // Unless another execution has it by now: a host's answer may be lost after it has started one.
        const unbegun = { attempt: 0 };
        const end = this.#recordEnd(request.id, target, error, unbegun).finally(() => this.#ends.delete(end));
        this.#ends.add(end);
      }
      throw error;
    }
  }

  #emitOf(runId: string, target: Target): (event: RunEvent) => void {
    return (event) => this.#options.log(recordOf(event, runId, target.name));
  }

  #start(request: RunRequest, target: Target, release: () => void, looked?: Look): void {
    const abort = new AbortController();
    const active: ActiveRun = {
      target: target.name,
      abort,
      ended: Promise.resolve(),
      change: Promise.withResolvers<void>(),
    };
    const tell = this.#emitOf(request.id, target);
    const emit = (event: RunEvent): void => {
      tell(event);
      active.change.resolve();
      active.change = Promise.withResolvers<void>();
    };
    this.#runs.set(request.id, active);
    active.ended = this.#execute(request, target, {
      signal: AbortSignal.any([this.#handOver.signal, abort.signal]),
      emit,
      looked,
    }).finally(() => {
      this.#runs.delete(request.id);
      release();
      active.change.resolve();
    });
  }

  async #execute(
    request: RunRequest,
    target: Target,
    { looked, ...options }: Pick<RunOptions, "signal" | "emit"> & { readonly looked: Look | undefined },
  ): Promise<void> {
    try {
      // It records its own end; what it could not record, because the database was away, is picked up when it is back.
      const executorMs = this.#options.executorMs?.();
      const { status, error } = await run(request, target, {
        ...options,
        ...(looked === undefined ? {} : { looked }),
        ...(executorMs === undefined ? {} : { executorMs }),
        now: this.#options.now,
      });
      if (status === "handing_over") await this.#passOn(request.id, target, error);
      else if (error !== null) this.#logFailure(request.id, target, error);
    } catch (thrown) {
      await this.#recordEnd(request.id, target, toRunnerError(thrown));
    }
  }

  /** Has another execution started for a run that this process has no more time for; who lost its lease has nothing to pass on. */
  async #passOn(runId: string, target: Target, error: RunnerError | null): Promise<void> {
    if (error?.code !== "HANDED_OVER") return;
    try {
      await this.#options.handOver?.start(target.name);
    } catch (thrown) {
      // it stays open: whoever looks at the target next goes on with it
      const { code, message } = toRunnerError(thrown);
      const fields = { run: runId, target: target.name, code, message };
      this.#options.log({ level: "error", event: "run.not-passed-on", fields });
    }
  }

  #logFailure(runId: string, target: Target, error: RunnerError): void {
    const fields = {
      run: runId,
      target: target.name,
      code: error.code,
      message: error.message,
      origin: originOf(error),
    };
    this.#options.log({ level: error.code === "INTERNAL" ? "error" : "warn", event: "run.failed", fields });
  }

  /** Ends a run that could not even begin; only while it has had no other attempt than `only` says. */
  async #recordEnd(
    runId: string,
    target: Target,
    error: RunnerError,
    only: { readonly attempt?: number } = {},
  ): Promise<void> {
    this.#logFailure(runId, target, error);
    const known = {
      code: error.code,
      message: error.message,
      hint: error.hint ?? null,
      fields: error.fields,
    };
    // Not the server's signal: it may be what ended the run.
    await target.driver
      .updateRun(
        runId,
        { status: "failed", outcome: "failed", error: known, ...only },
        AbortSignal.timeout(acceptMs),
      )
      .catch((thrown: unknown) => {
        const reason = toRunnerError(thrown);
        this.#options.log({
          level: "error",
          event: "run.unrecorded",
          fields: { run: runId, target: target.name, code: reason.code, message: reason.message },
        });
      });
  }
}
