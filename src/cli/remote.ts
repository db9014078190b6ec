import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { RunnerError } from "../error.ts";
import { plannedSchema, runSchema } from "./remote-run.ts";
import type { RemoteEntry, RemotePlan, RemoteRun } from "./remote-run.ts";
import type { Patience, RemoteServer } from "./remote-server.ts";
import { makeTeller, type Listener } from "./remote-teller.ts";

/** What a server is asked for. */
export interface RunWish {
  readonly target: string;
  readonly release: string | undefined;
  readonly action: "apply" | "rollback";
  readonly to: string | undefined;
  readonly plan: string | undefined;
  readonly onFailure: "keep" | "rollback" | undefined;
  readonly allowsBreaking: boolean;
  readonly labels: Readonly<Record<string, string>>;
  /** milliseconds to wait for the end; 0 does not wait */
  readonly waitMs: number;
}

/** How a run is followed. */
export interface FollowOptions extends Listener {
  readonly signal: AbortSignal;
  /** whether an abort also asks the server to stop the run */
  readonly cancelsOnAbort: boolean;
  /** milliseconds without any answer after which a run that has begun is not followed any longer */
  readonly outageMs?: number;
}

/** A run and what it did. */
export interface Followed {
  readonly run: RemoteRun;
  readonly entries: readonly RemoteEntry[];
}

/** Seconds one request asks the server to wait: short, so that progress is seen; the server answers at once when the run ends. */
const pollSeconds = 2;
/** Milliseconds from one look to the next at the least: a server that is about to stop, or a cache before it, answers at once. */
const minLookMs = 500;
/** Before a run is known, a server that does not answer is most likely not the one that was meant. */
const beginning: Patience = { attempts: 5, outageMs: 300_000, refusals: 1 };
/** Milliseconds: servers are replaced, gateways and networks fail, and a run goes on all the same. */
const defaultOutageMs = 300_000;
/** Of a refused token: one that has expired is replaced where it comes from. */
const refusals = 5;
/** Where the error that came before says what there is to say. */
const once: Patience = { attempts: 1, outageMs: 0, refusals: 1 };
/** Milliseconds for the request that stops a run: GitHub ends a step's processes 7.5 s after it has interrupted them. */
const cancelMs = 6_000;

/**
 * Asks for a run and follows it to its end, or until `waitMs` is over.
 *
 * All requests of one call carry one idempotency key, so that a repeated one cannot make a second run.
 *
 * @throws RunnerError with the server's own code where it refused; `SERVER_UNAVAILABLE` where it could not be reached;
 *   `CANCELED` where the signal aborted
 */
export async function triggerRun(
  server: RemoteServer,
  wish: RunWish,
  options: FollowOptions,
): Promise<Followed> {
  const { signal, outageMs = defaultOutageMs } = options;
  const deadline = performance.now() + wish.waitMs;
  const leftMs = (): number => Math.max(0, deadline - performance.now());
  const wait = (): number => Math.min(pollSeconds, Math.floor(leftMs() / 1_000));
  const tell = makeTeller(server, wish.target, options);
  let run: RemoteRun | undefined;
  try {
    run = await begin(server, wish, wait(), signal);
    let entries = await tell(run);
    while (!run.done && leftMs() > 0) {
      const patience = { attempts: Infinity, outageMs: Math.min(outageMs, leftMs()), refusals };
      const next = performance.now() + Math.min(minLookMs, leftMs());
      run = await look(server, run.id, Math.max(1, wait()), patience, signal);
      if (!run.done) await sleep(Math.max(0, next - performance.now()), undefined, { signal });
      entries = await tell(run);
    }
    return { run, entries };
  } catch (error) {
    if (signal.aborted) throw await stoppedWaiting(server, run, options, error);
    throw run === undefined ? error : whileFollowing(run, error);
  }
}

/** Asks what a run would do; nothing is changed. */
export async function askPlan(
  server: RemoteServer,
  wish: Pick<RunWish, "target" | "release" | "to">,
  signal: AbortSignal,
): Promise<RemotePlan> {
  const { target, release, to } = wish;
  const body = JSON.stringify({ target, action: "plan", release: named(release), to: to ?? null });
  return server.send({ path: "/v1/runs", body, answer: plannedSchema, patience: beginning }, signal);
}

function named(release: string | undefined): { readonly digest: string } | null {
  return release === undefined ? null : { digest: release };
}

/** The run; also one that was recorded as refused, which the server answers as a problem with the run's id. */
async function begin(
  server: RemoteServer,
  wish: RunWish,
  wait: number,
  signal: AbortSignal,
): Promise<RemoteRun> {
  const body = JSON.stringify({
    target: wish.target,
    action: wish.action,
    release: named(wish.release),
    to: wish.to ?? null,
    plan: wish.plan ?? null,
    labels: wish.labels,
    // an older server does not know these fields
    ...(wish.onFailure === undefined ? {} : { onFailure: wish.onFailure }),
    ...(wish.allowsBreaking ? { allow: ["breaking"] } : {}),
  });
  const headers = { "idempotency-key": randomUUID(), prefer: `wait=${wait}` };
  try {
    return await server.send(
      { path: "/v1/runs", body, headers, answer: runSchema, patience: beginning },
      signal,
    );
  } catch (error) {
    const id = error instanceof RunnerError ? error.fields["run"] : undefined;
    if (typeof id !== "string") throw error;
    const recorded = await look(server, id, 0, once, signal).catch(() => undefined);
    if (recorded?.outcome !== "refused") throw error;
    return recorded;
  }
}

function look(
  server: RemoteServer,
  id: string,
  wait: number,
  patience: Patience,
  signal: AbortSignal,
): Promise<RemoteRun> {
  const path = `/v1/runs/${encodeURIComponent(id)}?wait=${wait}`;
  return server.send({ path, answer: runSchema, patience }, signal);
}

/** Nobody knows what becomes of the run: that, too, is to be said. */
function whileFollowing(run: RemoteRun, thrown: unknown): unknown {
  if (!(thrown instanceof RunnerError)) return thrown;
  const { code, message, fields } = thrown;
  return new RunnerError(
    code,
    `${message}; run ${run.id} was ${run.status} when it was last seen, and may go on`,
    {
      hint: "ask again with the same release: a run that goes on is followed, and what is done is not done twice",
      fields: { ...fields, run: run.id },
      cause: thrown,
    },
  );
}

async function stoppedWaiting(
  server: RemoteServer,
  run: RemoteRun | undefined,
  { signal, cancelsOnAbort }: FollowOptions,
  cause: unknown,
): Promise<RunnerError> {
  const fields = signal.reason instanceof RunnerError ? signal.reason.fields : {};
  if (run === undefined) {
    return new RunnerError("CANCELED", "stopped before the server answered; it may have begun the run", {
      hint: "ask again with the same release: a run that goes on is followed",
      fields,
      cause,
    });
  }
  const ofRun = { ...fields, run: run.id };
  const byHand = `to stop it, POST ${server.url}/v1/runs/${run.id}/cancel`;
  if (!cancelsOnAbort) {
    return new RunnerError("CANCELED", `stopped waiting; run ${run.id} goes on at the server`, {
      hint: `${byHand}, or begin with --cancel-on-interrupt`,
      fields: ofRun,
      cause,
    });
  }
  try {
    await cancel(server, run.id);
  } catch (error) {
    const why = error instanceof RunnerError ? error.message : "unknown reason";
    return new RunnerError("CANCELED", `stopped waiting; run ${run.id} could not be told to stop (${why})`, {
      hint: byHand,
      fields: ofRun,
      cause: error,
    });
  }
  return new RunnerError("CANCELED", `told run ${run.id} to stop at its next safe point`, {
    hint: "ask again with the same release to go on",
    fields: ofRun,
    cause,
  });
}

/** The signal has aborted already, so this has a time of its own. */
async function cancel(server: RemoteServer, id: string): Promise<void> {
  await server.send(
    {
      path: `/v1/runs/${encodeURIComponent(id)}/cancel`,
      body: JSON.stringify({ reason: "the pipeline that asked for it was interrupted" }),
      answer: runSchema,
      patience: { attempts: 3, outageMs: cancelMs, refusals: 1 },
    },
    AbortSignal.timeout(cancelMs),
  );
}
