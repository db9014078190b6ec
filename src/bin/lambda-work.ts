import { setTimeout as sleep } from "node:timers/promises";
import { RunnerError, toRunnerError, type RunnerErrorCode } from "../error.ts";
import { ActiveRuns } from "../dispatch/active-runs.ts";
import { isWorthAnother } from "../dispatch/begin-release.ts";
import { within } from "../dispatch/patience.ts";
import { lineOf } from "../dispatch/received.ts";
import { createWaker } from "../dispatch/wake.ts";
import { targetsOf } from "../dispatch/watched.ts";
import type { Waker, Woken, WokenBy } from "../dispatch/waker.ts";
import { decodeEvent } from "../event/decode.ts";
import type { BucketEvent, QueueMessage } from "../event/event.ts";
import { answerBatch, type BatchAnswer } from "../event/sqs.ts";
import { isEnded, type RunRecord } from "../history/run.ts";
import type { Target } from "../runner.ts";
import { marginMs, targetNamed, type Invocation, type LambdaHost } from "./lambda-host.ts";
import type { OwnMessage } from "./lambda-message.ts";

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

/** What an invocation did, for whoever waits for it or has its result sent somewhere. */
export interface Done {
  readonly woken: readonly Outcome[];
}

/** What became of one target. */
export interface Outcome {
  readonly target: string;
  readonly kind: Woken["kind"];
  readonly run?: Pick<RunRecord, "id" | "status" | "outcome">;
  readonly code?: RunnerErrorCode;
}

/**
 * Does what a message of our own asks for.
 *
 * @throws RunnerError `UNKNOWN_TARGET`, `CONFIG`; `DATABASE_…`, `SOURCE_…`, `DEADLINE` - it is worth another delivery
 */
export async function doMessage(
  message: OwnMessage,
  host: LambdaHost,
  invocation: Invocation,
): Promise<Done> {
  // Of a sweep each target has a whole execution for itself.
  const beginsElsewhere = message.kind === "sweep" || (message.kind === "wake" && host.isFront(invocation));
  const execution = new Execution(host, invocation, beginsElsewhere);
  const by = { ...senderOf(invocation, "schedule"), trigger: "converge", via: "schedule" } as const;
  switch (message.kind) {
    case "work":
      await execution.goOn(targetNamed(message.target, host));
      return { woken: [] };
    case "wake": {
      const target = targetNamed(message.target, host);
      return execution.wakes([await execution.waker.wakeTarget(target, by, execution.signal)]);
    }
    case "sweep":
      return execution.wakes(await execution.waker.sweep(by, execution.signal));
  }
}

/**
 * Does what a storage service's event asks for. What nobody knows is logged and done.
 *
 * @returns for a queue's batch which messages are to come again
 * @throws RunnerError `CONFIG`; `DATABASE_…`, `SOURCE_…`, `DEADLINE` - the event is worth another delivery
 */
export async function doEvent(
  event: unknown,
  host: LambdaHost,
  invocation: Invocation,
): Promise<Done | BatchAnswer> {
  const decoded = decodeEvent(event);
  const contents = decoded.kind === "batch" ? decoded.messages.map(({ content }) => content) : [decoded];
  for (const content of contents) {
    const line = lineOf(content, senderOf(invocation, content.kind === "unknown" ? "unknown" : content.via));
    if (line !== undefined) host.log(line);
  }
  const events = contents.flatMap((content) => (content.kind === "events" ? content.events : []));
  const [first] = contents.flatMap((content) => (content.kind === "events" ? [content.via] : []));
  const woken =
    first === undefined || events.length === 0
      ? []
      : await wake(
          events,
          { ...senderOf(invocation, first), trigger: "event", via: first },
          host,
          invocation,
        );
  if (decoded.kind !== "batch") return doneUnlessUnreachable(woken);
  return answerBatch(decoded.messages, unreachableOf(decoded.messages, woken, host));
}

async function wake(
  events: readonly BucketEvent[],
  by: WokenBy,
  host: LambdaHost,
  invocation: Invocation,
): Promise<readonly Outcome[]> {
  // One is executed here, at once; of several each has a whole execution for itself. A front would cut a long statement off
  // after a minute of its locks, only to have it begun again.
  const isForSeveral = targetsOf(events, host.targets.values()).length > 1;
  const execution = new Execution(host, invocation, isForSeveral || host.isFront(invocation));
  return execution.outcomesOf(await execution.waker.wake(events, by, execution.signal));
}

/** Whoever Lambda's own permissions let through: the function's door is all that is known of them. */
function senderOf(
  { functionArn }: Invocation,
  via: WokenBy["via"] | "unknown",
): Pick<WokenBy, "issuer" | "subject" | "rule"> {
  return { issuer: `urn:lockkeeper:event:${via}`, subject: functionArn, rule: null };
}

/** The runs of one invocation, executed in its time; what is left then is handed over. */
class Execution {
  readonly waker: Waker;
  /** never aborts; one of its own, or whoever listens would be kept from one invocation to the next */
  readonly signal = new AbortController().signal;
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

  /** @throws RunnerError `DATABASE_…`, `SOURCE_…` - a target could not be asked */
  async wakes(woken: readonly Woken[]): Promise<Done> {
    return doneUnlessUnreachable(await this.outcomesOf(woken));
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

function doneUnlessUnreachable(woken: readonly Outcome[]): Done {
  const unreachable = woken.filter(({ kind }) => kind === "unreachable");
  const [first] = unreachable;
  if (first === undefined) return { woken };
  const names = unreachable.map(({ target, code }) => `"${target}" (${code ?? "INTERNAL"})`);
  throw new RunnerError(first.code ?? "INTERNAL", `not done for ${names.join(", ")}`, {
    hint: "the log says why; the event is worth another delivery",
  });
}

/** Ids of messages that are about a target which is to be asked again. */
function unreachableOf(
  messages: readonly QueueMessage[],
  woken: readonly Outcome[],
  { targets }: LambdaHost,
): ReadonlySet<string> {
  const unreachable = new Set(woken.filter(({ kind }) => kind === "unreachable").map(({ target }) => target));
  const failed = messages.filter(({ content }) => {
    if (content.kind !== "events") return false;
    return targetsOf(content.events, targets.values()).some(({ name }) => unreachable.has(name));
  });
  return new Set(failed.map(({ id }) => id));
}
