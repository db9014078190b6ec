import type { Goal } from "../plan/plan.ts";
import { pendingRepeatables } from "../plan/repeatable.ts";
import { planRun, type Target } from "../runner.ts";
import type { HttpContext, HttpParts } from "./context.ts";
import { within } from "../dispatch/patience.ts";
import type { RunBody } from "./run-request.ts";
import { readTarget } from "./target-view.ts";
import { viewPlan } from "./view.ts";
import { fetchRelease } from "../run/fetch-release.ts";

/** What the answers of a look have in common with a run that ended; they are not recorded and so have no id. */
function ended(body: RunBody, outcome: "planned" | "verified" | "noop") {
  return {
    id: null,
    target: body.target,
    action: body.action,
    status: "succeeded",
    done: true,
    outcome,
  } as const;
}

/**
 * Answers `plan`, `status` and `verify`: looks without changing or recording anything.
 *
 * @throws RunnerError what `planRun`, `readStatus` and the release are refused for, see the codes of each
 */
export async function inspect(
  c: HttpContext,
  parts: HttpParts,
  target: Target,
  body: RunBody,
): Promise<Response> {
  const { look: looks, verify } = parts.turns;
  const turns = body.action === "verify" ? verify : looks;
  const look = (signal: AbortSignal): Promise<object> =>
    turns.take(() => lookAt(target, body, parts, signal), signal);
  return c.json(await within(parts.limits.readMs, look, c.req.raw.signal));
}

async function lookAt(target: Target, body: RunBody, parts: HttpParts, signal: AbortSignal): Promise<object> {
  switch (body.action) {
    case "plan": {
      const request = { goal: goalOf(body), release: body.release?.digest ?? null };
      const plan = await planRun(request, target, { signal, emit: () => undefined, now: parts.now });
      return { ...ended(body, "planned"), plan: viewPlan(plan) };
    }
    case "verify":
      return { ...ended(body, "verified"), release: await verifyPending(target, body, parts, signal) };
    default:
      return { ...ended(body, "noop"), state: await readTarget(target, parts, signal) };
  }
}

/** Without a version, everything that is pending; with one, whichever way leads there. */
function goalOf(body: RunBody): Goal {
  return body.to === null ? { kind: "latest" } : { kind: "version", version: body.to, allow: "both" };
}

/** Verifies the release against what the database remembers, and every body that is not applied yet. */
async function verifyPending(target: Target, body: RunBody, parts: HttpParts, signal: AbortSignal) {
  const { driver, releases, stream } = target;
  const state = await driver.state(stream, signal);
  const wanted = { expected: body.release?.digest, now: parts.now() };
  const release = await fetchRelease(target, state, wanted, signal);
  const migrations = release.migrations.slice(state.position.length);
  const pending = [...migrations, ...pendingRepeatables(release, state.repeatables)];
  const checkpoints = migrations.flatMap(({ checkpoint }) => (checkpoint === undefined ? [] : [checkpoint]));
  await releases.bodies(release, [...pending, ...checkpoints], signal);
  return {
    digest: release.digest,
    version: release.rank?.version ?? null,
    epoch: release.rank?.epoch ?? null,
    expires: release.expires?.toISOString() ?? null,
    signers: release.signers,
    migrations: release.migrations.length,
    pending: pending.length,
  };
}
