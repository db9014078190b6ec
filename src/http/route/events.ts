import type { Hono } from "hono";
import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import { authorize, targetOfRun, unknownRun } from "../auth/access.ts";
import { readQuery } from "../body.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { eventTypes, streamEvents, type EventFormat } from "../event-stream.ts";
import { within } from "../../dispatch/patience.ts";
import { watchRun } from "../watch.ts";
import { openWatcher } from "../watching.ts";

/** `GET /v1/runs/{id}/events`: what happens in a run, as server-sent events or NDJSON, until `run.done`. */
export function addEventRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.get("/v1/runs/:id/events", async (c) => {
    const id = c.req.param("id");
    const { target } = authorize(c, parts, { action: "status", target: targetOfRun(id) }, { run: id });
    c.get("note")["run"] = id;
    readQuery(c, v.strictObject({}));
    const afterId = lastEventId(c);
    const format = formatOf(c);
    // Before the stream begins, so that it is a plain 404.
    const run = await within(
      parts.limits.readMs,
      (reading) => target.driver.run(id, reading),
      c.req.raw.signal,
    );
    if (run === undefined) throw unknownRun(id);

    const left = new AbortController();
    const closeWatcher = openWatcher(c, parts);
    const signal = AbortSignal.any([
      c.req.raw.signal,
      parts.signal,
      left.signal,
      AbortSignal.timeout(parts.limits.streamMs),
    ]);
    const updates = watchRun(target, id, afterId, { active: parts.active, limits: parts.limits, signal });
    const body = streamEvents(updates, format, parts, () => {
      left.abort();
      closeWatcher();
    });
    // Some proxies collect a response until it is whole unless told not to.
    return c.body(body, 200, { "content-type": eventTypes[format], "x-accel-buffering": "no" });
  });
}

/** Server-sent events unless the caller accepts NDJSON and not them. */
function formatOf(c: HttpContext): EventFormat {
  const accept = (c.req.header("accept") ?? "").toLowerCase();
  return accept.includes("ndjson") && !accept.includes("text/event-stream") ? "ndjson" : "sse";
}

/** What a watcher that reconnects has seen: event ids are ids of history entries. */
function lastEventId(c: HttpContext): number {
  const header = c.req.header("last-event-id") ?? "";
  if (header === "") return 0;
  if (/^[0-9]{1,15}$/.test(header)) return Number(header);
  throw new RunnerError("INVALID_REQUEST", "the Last-Event-ID is not an id of one of these events");
}
