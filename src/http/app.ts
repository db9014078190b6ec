import { randomUUID } from "node:crypto";
import { Hono, type MiddlewareHandler } from "hono";
import { matchedRoutes } from "hono/route";
import { RunnerError, toRunnerError } from "../error.ts";
import { ActiveRuns } from "../dispatch/active-runs.ts";
import { createWaker } from "../dispatch/wake.ts";
import { AppliedReleases } from "./applied-release.ts";
import { DecisionAudit } from "./audit.ts";
import { audited } from "./audited.ts";
import { authenticate } from "./auth/authentication.ts";
import { RateLimit } from "./auth/rate-limit.ts";
import { ByteBudget } from "./byte-budget.ts";
import type { HttpContext, HttpDeps, HttpEnv, HttpParts } from "./context.ts";
import { parseTraceParent } from "../run/trace-parent.ts";
import { originOf } from "../report/origin.ts";
import { linksBelow } from "./link.ts";
import { problemOf, problemResponse } from "./problem.ts";
import { addCancelRoute } from "./route/cancel.ts";
import { addWakeRoutes } from "./route/event.ts";
import { addEventRoutes } from "./route/events.ts";
import { addGateRoutes } from "./route/gate.ts";
import { addHealthRoutes } from "./route/health.ts";
import { addHookRoutes } from "./route/hook.ts";
import { addHistoryRoute } from "./route/history.ts";
import { addPostRunRoute } from "./route/post-run.ts";
import { addRunRoutes } from "./route/run.ts";
import { addTargetRoutes } from "./route/target.ts";
import { addUnlockRoute } from "./route/unlock.ts";
import { Turns } from "./turns.ts";
import { Watchers } from "./watchers.ts";

/** The HTTP server, less its socket. */
export interface HttpApp {
  readonly hono: Hono<HttpEnv>;
  /** the runs it executes */
  readonly active: ActiveRuns;
  /** Goes on with runs that another server left, of all targets; to be called at the start and every {@link HttpLimits.pickUpMs}. */
  pickUp(): Promise<void>;
  /** Resolves when no run and no record is left; whoever stops the server waits for it. */
  drained(): Promise<void>;
}

/**
 * The HTTP API over opened targets. Everything below `/v1`, and events, need a caller who proves who they are, and a rule
 * that allows it.
 *
 * Requests are answered without a port too: `app.hono.request("/v1/runs", …)`.
 */
export function createApp(deps: HttpDeps): HttpApp {
  const { limits, signal, handOver, log, now } = deps;
  const active = new ActiveRuns({
    perTarget: limits.runsPerTarget,
    signal,
    ...(handOver === undefined ? {} : { handOver, beginsElsewhere: true }),
    log,
    now,
  });
  const parts: HttpParts = {
    ...deps,
    active,
    waker: createWaker({
      targets: deps.targets,
      active,
      ...(handOver === undefined ? {} : { handOver }),
      log,
    }),
    audit: new DecisionAudit(deps),
    links: linksBelow(deps.publicUrl),
    rateLimit: new RateLimit(),
    applied: new AppliedReleases(),
    turns: {
      look: new Turns({ atOnce: limits.looks, waiting: limits.waiting }),
      verify: new Turns({ atOnce: limits.verifications, waiting: limits.waiting }),
    },
    strangers: new ByteBudget(limits.strangersBytes),
    watchers: new Watchers(limits),
  };
  const hono = new Hono<HttpEnv>();
  hono.use(logged(parts));
  hono.use(guarded(parts));
  hono.use("/v1/*", onlyKnownMethods(hono), authenticate(parts), audited(parts));

  addPostRunRoute(hono, parts);
  addHookRoutes(hono, parts);
  addWakeRoutes(hono, parts);
  addRunRoutes(hono, parts);
  addGateRoutes(hono, parts);
  addEventRoutes(hono, parts);
  addCancelRoute(hono, parts);
  addTargetRoutes(hono, parts);
  addHistoryRoute(hono, parts);
  addUnlockRoute(hono, parts);
  addHealthRoutes(hono, parts);

  hono.notFound((c) => problemAnswer(c, notFound(hono, c), parts));
  hono.onError((thrown, c) => problemAnswer(c, toRunnerError(thrown), parts));
  const drained = async (): Promise<void> => {
    await Promise.all([active.drained(), parts.audit.drained()]);
  };
  return { hono, active, pickUp: () => pickUp(parts), drained };
}

/** Databases that are asked at once. */
const pickUpAtOnce = 8;

/** A database that cannot be asked keeps nobody from the others. */
async function pickUp({ targets, active, log }: HttpParts): Promise<void> {
  const left = targets.values();
  const work = async (): Promise<void> => {
    for (const target of left) {
      // What was left open stays so until the pause is over.
      if (target.isPaused === true) continue;
      try {
        await active.pickUp(target);
      } catch (thrown) {
        const { code, message } = toRunnerError(thrown);
        log({ level: "warn", event: "pickup.failed", fields: { target: target.name, code, message } });
      }
    }
  };
  await Promise.all(Array.from({ length: pickUpAtOnce }, work));
}

/** One log line a request; never its headers, query or body. */
function logged(parts: HttpParts): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const startedAt = performance.now();
    c.set("requestId", randomUUID());
    c.set("note", {});
    await next();
    const trace = parseTraceParent(c.req.header("traceparent"));
    const fields = {
      request: c.get("requestId"),
      method: c.req.method,
      path: c.req.path.slice(0, 300),
      route: routeOf(c),
      status: c.res.status,
      durationMs: Math.round((performance.now() - startedAt) * 10) / 10,
      ...(trace === undefined ? {} : { trace_id: trace.traceId }),
      ...c.get("note"),
    };
    const level =
      c.res.status >= 500
        ? "error"
        : c.res.status >= 400
          ? "warn"
          : c.req.path.startsWith("/health/")
            ? "debug"
            : "info";
    parts.log({ level, event: "http.request", fields });
  };
}

/** `/v1/runs/:id`, as the description has it; null where there is none, so that no caller makes one up. */
function routeOf(c: HttpContext): string | null {
  const route = matchedRoutes(c).findLast(({ method }) => method === c.req.method);
  return route?.path ?? null;
}

/** Headers that keep answers out of caches and browsers' hands. There is no CORS: no page of another origin has business here. */
function guarded(parts: HttpParts): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    await next();
    c.res.headers.set("cache-control", "no-store");
    c.res.headers.set("x-content-type-options", "nosniff");
    c.res.headers.set("content-security-policy", "default-src 'none'; frame-ancestors 'none'");
    c.res.headers.set("referrer-policy", "no-referrer");
    c.res.headers.set("cross-origin-resource-policy", "same-origin");
    c.res.headers.set("x-request-id", c.get("requestId"));
    if (parts.publicUrl.startsWith("https:"))
      c.res.headers.set("strict-transport-security", "max-age=31536000");
  };
}

/** Before authentication, so that the answer to a wrong method does not depend on the token; also for HEAD, which would open event streams. */
function onlyKnownMethods(hono: Hono<HttpEnv>): MiddlewareHandler<HttpEnv> {
  return async (c, next) => {
    const allowed = methodsOf(hono, c.req.path);
    if (allowed.length > 0 && !allowed.includes(c.req.method)) throw methodNotAllowed(allowed);
    await next();
  };
}

function notFound(hono: Hono<HttpEnv>, c: HttpContext): RunnerError {
  const allowed = methodsOf(hono, c.req.path);
  if (allowed.length > 0 && !allowed.includes(c.req.method)) return methodNotAllowed(allowed);
  return new RunnerError("NOT_FOUND", "there is nothing at this address", {
    hint: "GET /openapi.json lists what there is",
  });
}

function methodNotAllowed(allowed: readonly string[]): RunnerError {
  return new RunnerError("METHOD_NOT_ALLOWED", `this address takes ${allowed.join(" and ")}`, {
    fields: { allow: allowed.join(", ") },
  });
}

/** Methods of the routes that a path matches. */
function methodsOf(hono: Hono<HttpEnv>, path: string): readonly string[] {
  const matching = hono.routes.filter((route) => {
    if (route.method === "ALL") return false;
    const pattern = route.path.replaceAll(".", "\\.").replace(/:[a-z]+/g, "[^/]+");
    return new RegExp(`^${pattern}$`).test(path);
  });
  return [...new Set(matching.map((route) => route.method))];
}

function problemAnswer(c: HttpContext, error: RunnerError, parts: HttpParts): Response {
  const requestId = c.get("requestId");
  c.get("note")["code"] = error.code;
  // callers are told less of these than whoever runs the server needs
  if (error.http >= 500) {
    parts.log({
      level: error.http === 500 ? "error" : "warn",
      event: "http.fault",
      fields: { request: requestId, code: error.code, message: error.message, origin: originOf(error) },
    });
  }
  const target = c.get("note")["target"];
  const run = c.get("note")["run"];
  const known =
    error.code !== "UNKNOWN_TARGET" && error.code !== "UNKNOWN_RUN" && error.code !== "UNAUTHENTICATED";
  return problemResponse(
    problemOf(error, {
      requestId,
      ...(known && typeof target === "string" ? { target } : {}),
      ...(known && typeof run === "string" ? { run, links: { run: parts.links.run(run) } } : {}),
    }),
  );
}
