import type { Hono } from "hono";
import { RunnerError } from "../../error.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { openApiDocument } from "../openapi.ts";

/**
 * What needs no token: liveness, readiness, version, the API's description. None of it says anything of a target.
 *
 * Ready means that configuration and keys are loaded, which they are before the server listens, and that it is not
 * stopping; not that the databases answer, or one database's outage would take the server from all the others.
 */
export function addHealthRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.get("/health/live", (c) => c.json({ status: "ok" }));
  app.get("/health/ready", (c) => {
    if (parts.signal.aborted) throw new RunnerError("STOPPING", "this server is stopping");
    return c.json({ status: "ok" });
  });
  app.get("/version", (c) => c.json({ name: "lockkeeper", version: parts.version }));
  app.get("/openapi.json", (c) => c.json(openApiDocument(parts.version, parts.publicUrl)));
}
