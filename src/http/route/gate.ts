import type { Hono } from "hono";
import * as v from "valibot";
import type { StreamState } from "../../driver/stream-state.ts";
import { RunnerError } from "../../error.ts";
import { parseChainEnd } from "../../release/chain.ts";
import type { Target } from "../../runner.ts";
import { hasChain, isAtLeast } from "../../status/chain.ts";
import { answerGate } from "../answer.ts";
import { authorize } from "../auth/access.ts";
import { readQuery } from "../body.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { within } from "../../dispatch/patience.ts";
import { chain, digest, version } from "../run-request.ts";
import { viewPosition } from "../view.ts";
import { watchedRun } from "./run.ts";

/** `GET /v1/runs/{id}/gate` and `GET /v1/targets/{name}/gate`: answers by status code alone. */
export function addGateRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.get("/v1/runs/:id/gate", async (c) => answerGate(c, await watchedRun(c, parts), parts));
  app.get("/v1/targets/:name/gate", (c) => targetGate(c, parts));
}

const querySchema = v.pipe(
  v.strictObject({ release: v.optional(digest), chain: v.optional(chain), min: v.optional(version) }),
  v.check(
    (asked) => Object.values(asked).filter((one) => one !== undefined).length === 1,
    "needs one of ?release=sha256:…, ?chain=LENGTH:HEAD and ?min=VERSION",
  ),
);

async function targetGate(c: HttpContext, parts: HttpParts): Promise<Response> {
  const { target } = authorize(c, parts, { action: "status", target: c.req.param("name") ?? "" });
  const asked = readQuery(c, querySchema);
  const look = async (signal: AbortSignal): Promise<{ state: StreamState; isApplied: boolean }> => {
    const now = await target.driver.state(target.stream, signal);
    return { state: now, isApplied: await hasAsked(asked, target, now, parts, signal) };
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
    `"${target.name}" is at ${state.position.version ?? "the start"}, not yet at ${asked.release ?? asked.chain ?? `version ${asked.min ?? ""}`}`,
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

async function hasAsked(
  { release, chain, min }: v.InferOutput<typeof querySchema>,
  target: Target,
  state: StreamState,
  parts: HttpParts,
  signal: AbortSignal,
): Promise<boolean> {
  if (release !== undefined) return parts.applied.has(target, state, release, parts.now(), signal);
  const end = chain === undefined ? undefined : parseChainEnd(chain);
  if (end !== undefined) return hasChain(target.driver, target.stream, state, end, signal);
  return isAtLeast(state, min ?? "");
}
