import type { Hono } from "hono";
import * as v from "valibot";
import type { StreamState } from "../../driver/stream-state.ts";
import { RunnerError } from "../../error.ts";
import { compareVersions } from "../../migration/version.ts";
import { answerGate } from "../answer.ts";
import { authorize } from "../auth/access.ts";
import { readQuery } from "../body.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { within } from "../../dispatch/patience.ts";
import { digest, version } from "../run-request.ts";
import { viewPosition } from "../view.ts";
import { watchedRun } from "./run.ts";

/** `GET /v1/runs/{id}/gate` and `GET /v1/targets/{name}/gate`: answers by status code alone. */
export function addGateRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.get("/v1/runs/:id/gate", async (c) => answerGate(c, await watchedRun(c, parts), parts));
  app.get("/v1/targets/:name/gate", (c) => targetGate(c, parts));
}

const querySchema = v.pipe(
  v.strictObject({ release: v.optional(digest), min: v.optional(version) }),
  v.check(
    ({ release, min }) => (release === undefined) !== (min === undefined),
    "needs either ?release=sha256:… or ?min=VERSION",
  ),
);

async function targetGate(c: HttpContext, parts: HttpParts): Promise<Response> {
  const { target } = authorize(c, parts, { action: "status", target: c.req.param("name") ?? "" });
  const { release, min } = readQuery(c, querySchema);
  const look = async (signal: AbortSignal): Promise<{ state: StreamState; isApplied: boolean }> => {
    const now = await target.driver.state(target.stream, signal);
    if (release === undefined) return { state: now, isApplied: isAtLeast(now, min ?? "") };
    return { state: now, isApplied: await parts.applied.has(target, now, release, parts.now(), signal) };
  };
  const { state, isApplied } = await within(
    parts.limits.readMs,
    (signal) => parts.turns.look.take(() => look(signal), signal),
    c.req.raw.signal,
  );
  if (isApplied) {
    return c.json({
      target: target.name,
      applied: true,
      position: viewPosition(state.position),
      completed: state.completed,
    });
  }
  const runId = state.lease?.runId;
  throw new RunnerError(
    "NOT_APPLIED",
    `"${target.name}" is at ${state.position.version ?? "the start"}, not yet at ${release ?? `version ${min ?? ""}`}`,
    {
      hint:
        runId === undefined
          ? "ask again; no run is changing the database now"
          : `ask again; run ${runId} is changing the database now`,
      fields: {
        version: state.position.version,
        completed: state.completed,
        run: runId ?? null,
        retryAfterSeconds: 3,
      },
    },
  );
}

function isAtLeast(state: StreamState, min: string): boolean {
  return state.position.version !== null && compareVersions(state.position.version, min) >= 0;
}
