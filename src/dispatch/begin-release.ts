import { RunnerError, type RunnerErrorCode, toRunnerError, traits } from "../error.ts";
import { isEnded, type RunRecord } from "../history/run.ts";
import { orderOf } from "../run/order.ts";
import { stickyFailures } from "../run/usable.ts";
import { newRunId, planRun, type Target } from "../runner.ts";
import type { ActiveRuns } from "./active-runs.ts";
import { runOf, type RunOrder } from "./begun.ts";
import { look, type Look } from "./look.ts";
import { within } from "./patience.ts";
import type { Woken, WokenBy } from "./waker.ts";

/** Which release a run was begun for; a label that no caller can write, since theirs have no slash. */
const offeredLabel = "lockkeeper/offered";
/** runs of a target that are searched at a time for the newest one that was begun for a release */
const pageRuns = 100;
/** milliseconds to read them all */
const readMs = 8_000;
/** milliseconds to fetch, verify and plan a release */
const lookCloserMs = 20_000;
/**
 * Milliseconds after which a refused release is tried again, where no look shows whether what was wrong with it is mended:
 * bytes that somebody had replaced in the bucket, or a configuration. Then only after as long as it has been refused already, so
 * that one that stays refused has a dozen rows in a year.
 */
const leastRefusedMs = 3_600_000;
/** Runs begun for one release while it is being woken, as far as they are followed: each wake adds one at the most. */
const maxFollowed = 64;

/**
 * Begins the run of a release, or finds the one that was begun for it: one a release, however often and by however many
 * processes at once. The database keeps them apart, by a key of the release.
 *
 * The run is not pinned to the release: it converges to what the bucket offers when it has the lease. A bucket's word for
 * its newest release decides nothing, and a pinned one would need nobody who vouches for it.
 *
 * A further run, whose key names the one before, begins only where that one ended by what another moment may bring, or by
 * what may have been mended meanwhile, or the database has been moved since.
 *
 * @param seen - what was pending
 * @throws RunnerError what database and bucket throw; `RATE_LIMITED`, `STOPPING`, `HAND_OVER_FAILED`, `AUDIT_UNAVAILABLE`
 */
export async function beginRelease(
  target: Target,
  seen: Extract<Look, { readonly kind: "pending" }>,
  by: WokenBy,
  { active, signal }: { readonly active: ActiveRuns; readonly signal: AbortSignal },
): Promise<Woken> {
  const { name } = target;
  const first = `event:${seen.offered}`;
  let key = first;
  let firstAt: Date | undefined;
  for (let followed = 0; followed < maxFollowed; followed++) {
    const begun = await active.begin(runOrder(target, seen.offered, key, by), target);
    if (begun.kind !== "existing") return { target: name, kind: "run", run: { id: runOf(begun) } };
    firstAt ??= begun.run.createdAt;
    const run = key === first ? await newestOf(target, seen.offered, begun.run, signal) : begun.run;
    // One that was begun since is somebody's answer to what was seen here.
    if (!isEnded(run.status) || run.createdAt >= seen.at) return { target: name, kind: "run", run };
    const further = await whatNext(target, seen, { firstAt, ended: run }, signal);
    if (further !== "again") return further;
    key = `${first}:after:${run.id}`;
  }
  throw new RunnerError("RATE_LIMITED", `${maxFollowed} runs of "${name}" ended without its newest release`, {
    hint: "GET /v1/runs lists them with their errors",
  });
}

/** What follows from a run of this release that has ended before it was looked again. */
async function whatNext(
  target: Target,
  seen: Extract<Look, { readonly kind: "pending" }>,
  { firstAt, ended: run }: { readonly firstAt: Date; readonly ended: RunRecord },
  signal: AbortSignal,
): Promise<Woken | "again"> {
  const { name } = target;
  if (run.status === "succeeded") {
    // It may have ended after the look; and where it found nothing to do in this release, another would find nothing either.
    const now = await look(target, signal);
    if (now.kind !== "pending") return { target: name, ...now };
    const isInVain = run.outcome === "noop" && run.releaseDigest === seen.offered;
    return isInVain || now.offered !== seen.offered ? { target: name, kind: "run", run } : "again";
  }
  const code = run.error?.code ?? "INTERNAL";
  if (mendedByPeople.has(code)) return lookCloser(target, code, signal);
  // Whoever stopped it would not have it begin again by itself.
  const isOver = code === "CANCELED" || stickyFailures.has(code);
  const againAfterMs = Math.max(leastRefusedMs, run.createdAt.getTime() - firstAt.getTime());
  const isDue = seen.at.getTime() - run.createdAt.getTime() >= againAfterMs;
  return !isOver && (isDue || isWorthAnother(code)) ? "again" : { target: name, kind: "left-alone", code };
}

/**
 * Refusals that somebody may have mended since, by the configuration or in the bucket, and that show again without a run:
 * so it is looked whether they do, in place of a row for every sweep.
 */
const mendedByPeople: ReadonlySet<RunnerErrorCode> = new Set([
  "THRESHOLD",
  "WRONG_STREAM",
  "WRONG_ENVIRONMENT",
  "WRONG_ENGINE",
  "WRONG_EPOCH",
  "ISSUED_IN_FUTURE",
  "RELEASE_NOT_FOUND",
  "RELEASE_REVOKED",
  "ROOT_INVALID",
  "ROOT_THRESHOLD",
  "ROOT_EXPIRED",
  "ROLLBACK",
  "EQUIVOCATION",
  "HISTORY_REWRITTEN",
  "DATABASE_AHEAD",
  "OUT_OF_ORDER",
]);

/** Verifies and plans what was refused, without a lease. */
async function lookCloser(
  target: Target,
  code: RunnerErrorCode,
  signal: AbortSignal,
): Promise<Woken | "again"> {
  const wanted = { goal: { kind: "latest" }, release: null } as const;
  const options = { emit: () => undefined, now: () => new Date() };
  try {
    await within(
      lookCloserMs,
      (patience) => planRun(wanted, target, { ...options, signal: patience }),
      signal,
    );
    return "again";
  } catch (thrown) {
    const now = toRunnerError(thrown).code;
    if (isWorthAnother(now)) throw thrown;
    return { target: target.name, kind: "left-alone", code: mendedByPeople.has(now) ? now : code };
  }
}

/** Whether the fault is not the release's own: unreachable or misconfigured infrastructure, a lock, a deadline. */
export function isWorthAnother(code: RunnerErrorCode): boolean {
  return traits[code].retry || traits[code].exit === traits.DATABASE_UNAVAILABLE.exit;
}

/** The newest run that was begun for the release; `known` is the first of them. */
async function newestOf(
  { name, driver }: Target,
  offered: string,
  known: RunRecord,
  signal: AbortSignal,
): Promise<RunRecord> {
  if (!isEnded(known.status)) return known;
  return within(
    readMs,
    async (patience) => {
      let page = await driver.runs({ target: name, limit: pageRuns }, patience);
      for (;;) {
        const found = page.find(({ id, labels }) => labels[offeredLabel] === offered || id === known.id);
        const last = page.at(-1);
        if (found !== undefined || last === undefined) return found ?? known;
        page = await driver.runs({ target: name, limit: pageRuns, beforeId: last.id }, patience);
      }
    },
    signal,
  );
}

function runOrder(target: Target, offered: string, idempotencyKey: string, by: WokenBy): RunOrder {
  const id = newRunId(target.name);
  const { trigger, issuer, subject, rule, traceparent } = by;
  const request = {
    id,
    action: "apply",
    goal: { kind: "latest" },
    release: null,
    plan: null,
    trigger,
    caller: { issuer, subject, rule },
    labels: { [offeredLabel]: offered },
    limits: target.limits,
    ...(traceparent === undefined ? {} : { traceparent }),
    isAccepted: true,
  } as const;
  const { action, caller, labels } = request;
  return {
    request,
    record: {
      id,
      target: target.name,
      stream: target.stream,
      action,
      trigger,
      caller,
      releaseDigest: null,
      labels,
      order: orderOf(request),
      idempotencyKey,
      bodyDigest: null,
      singleUse: null,
    },
    sameAs: JSON.stringify(["wake", target.name, idempotencyKey]),
    recordAllowed: async (runId, isNew) => by.recordAllowed?.(target, runId, isNew),
  };
}
