import { setTimeout as sleep } from "node:timers/promises";
import { ActiveRuns } from "../../dispatch/active-runs.ts";
import { isWorthAnother } from "../../dispatch/begin-release.ts";
import { within } from "../../dispatch/patience.ts";
import { createWaker } from "../../dispatch/wake.ts";
import type { Waker, Woken } from "../../dispatch/waker.ts";
import { RunnerError, toRunnerError, type RunnerErrorCode } from "../../error.ts";
import { isEnded, type RunRecord } from "../../history/run.ts";
import type { Target } from "../../runner.ts";
import { marginMs, type Invocation, type LambdaHost } from "./host.ts";

/** runs of one target that an invocation executes at once; all but one wait for the lease */
const perTarget = 8;
/** milliseconds between two signs of life for runs that wait: a third of what a claim lasts */
const renewMs = 15_000;
/** milliseconds to ask for a run's end */
const readMs = 5_000;
/** milliseconds that runs must have of an invocation */
const leastMs = 2_000;
/** of an invocation's time: a run that comes later begins in the next one, or it would soon be handed over */
const lateShare = 0.5;

/** What became of one target. */
export interface Outcome {
  readonly target: string;
  readonly kind: Woken["kind"];
  readonly run?: Pick<RunRecord, "id" | "status" | "outcome">;
  readonly code?: RunnerErrorCode;
}

/** The runs of one invocation, executed in its time; what is left then is handed over. */
export class Execution {
  readonly waker: Waker;
  /** never aborts; one of its own, or whoever listens would be kept from one invocation to the next */
  readonly signal: AbortSignal = new AbortController().signal;
  readonly #active: ActiveRuns;
  readonly #host: LambdaHost;
  readonly #invocation: Invocation;
  /** milliseconds that the invocation had when it began */
  readonly #wholeMs: number;
  readonly #marginMs: number;
  /** runs begun or picked up here */
  #started = 0;

  /** @throws RunnerError `CONFIG` - the function has so little time that it would only pass its runs on */
  constructor(host: LambdaHost, invocation: Invocation, beginsElsewhere: boolean) {
    const { targets, log, now } = host;
    this.#host = host;
    this.#invocation = invocation;
    this.#wholeMs = invocation.msLeft();
    this.#marginMs = marginMs(this.#wholeMs);
    if (!beginsElsewhere && this.#wholeMs < this.#marginMs + leastMs) throw tooShort(this.#wholeMs);
    const handOver = host.handOver(invocation);
    this.#active = new ActiveRuns({
      perTarget,
      signal: this.signal,
      handOver,
      beginsElsewhere,
      executorMs: () => {
        this.#started += 1;
        return Math.max(1, invocation.msLeft() - this.#marginMs);
      },
      log,
      now,
    });
    this.waker = createWaker({ targets, active: this.#active, handOver, log });
  }

  /** Executes the open runs of a target, until none is left or the time is over. */
  async goOn(target: Target): Promise<void> {
    // What was left open stays so until the pause is over.
    if (target.isPaused === true) return;
    let before: number;
    do {
      before = this.#started;
      await this.#active.pickUp(target);
      await this.#drained([target]);
    } while (this.#started > before && !this.#isLate());
  }

  /** Waits for the ends of the runs that were begun here. */
  async outcomesOf(woken: readonly Woken[]): Promise<readonly Outcome[]> {
    const { targets } = this.#host;
    const names = woken.flatMap((one) => (one.kind === "run" ? [one.target] : []));
    await this.#drained(names.flatMap((name) => targets.get(name) ?? []));
    return Promise.all(woken.map((one) => this.#outcomeOf(one)));
  }

  async #outcomeOf(woken: Woken): Promise<Outcome> {
    const { target, kind } = woken;
    if (kind === "up-to-date") return { target, kind };
    if (kind !== "run") return { target, kind, code: woken.code };
    const driver = this.#host.targets.get(target)?.driver;
    const { id } = woken.run;
    try {
      const run = await within(readMs, async (signal) => driver?.run(id, signal));
      if (run === undefined) return { target, kind };
      const seen = { id, status: run.status, outcome: run.outcome };
      if (!isEnded(run.status) || run.error === null) return { target, kind, run: seen };
      const { code } = run.error;
      const isToComeAgain = code !== "CANCELED" && isWorthAnother(code);
      return { target, kind: isToComeAgain ? "unreachable" : kind, run: seen, code };
    } catch (thrown) {
      return { target, kind: "unreachable", code: toRunnerError(thrown).code };
    }
  }

  /**
   * @throws RunnerError `DEADLINE` - a run would not stop in time; its lease expires, and whoever looks next goes on with it
   */
  async #drained(targets: readonly Target[]): Promise<void> {
    const done = new AbortController();
    const renewing = this.#renew(targets, done.signal);
    const lastMs = Math.max(0, this.#invocation.msLeft() - this.#marginMs / 4);
    const isDone = await Promise.race([
      this.#active.drained().then(() => true),
      sleep(lastMs, false, { signal: done.signal }).catch(() => false),
    ]);
    done.abort();
    if (isDone) {
      await renewing;
      // what was picked up in the same moment
      return this.#active.isIdle ? undefined : this.#drained(targets);
    }
    throw new RunnerError("DEADLINE", "a run did not stop before the end of the function's time", {
      hint: "the next sweep goes on with it; give the function more memory, which is more of a processor, or more time",
    });
  }

  /** Says now and then of runs that wait for a lease that they have not been given up. */
  async #renew(targets: readonly Target[], signal: AbortSignal): Promise<void> {
    for (;;) {
      await sleep(renewMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted || this.#isLate()) return;
      await Promise.allSettled(targets.map((target) => this.#active.pickUp(target)));
    }
  }

  #isLate(): boolean {
    return this.#invocation.msLeft() < this.#wholeMs * lateShare;
  }
}

function tooShort(ms: number): RunnerError {
  return new RunnerError(
    "CONFIG",
    `the function had ${Math.round(ms / 1000)} s for a run, and that is too little`,
    {
      hint: "set its timeout to 60 s at the least, better to 900 s, the most that there is",
    },
  );
}
