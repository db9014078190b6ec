import type { Hono } from "hono";
import * as v from "valibot";
import { answerBegun, answerGate } from "../answer.ts";
import { readBody, readQuery } from "../body.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { inspect } from "../inspect.ts";
import { allowRun, beginRun, isChange } from "../order-run.ts";
import { parseIdempotencyKey, parsePrefer } from "../prefer.ts";
import { runRequestSchema } from "../run-request.ts";

/** `POST /v1/runs`: the one request that changes a database. */
export function addPostRunRoute(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.post("/v1/runs", async (c) => {
    const { gate } = readQuery(
      c,
      v.strictObject({ gate: v.optional(v.picklist(["0", "1"], "has to be 1"), "0") }),
    );
    const idempotencyKey = parseIdempotencyKey(c.req.header("idempotency-key"));
    const { waitMs, applied } = parsePrefer(c.req.header("prefer"), parts.limits);
    const { value: body, digest: bodyDigest } = await readBody(c, parts, runRequestSchema);
    const access = allowRun(c, parts, body);
    if (!isChange(body)) return inspect(c, parts, access.target, body);

    const by = { trigger: "http", bodyDigest, idempotencyKey } as const;
    const run = await beginRun(c, parts, { body, access, by }, waitMs);
    if (applied !== undefined) c.header("preference-applied", applied);
    return gate === "1" ? answerGate(c, run, parts) : answerBegun(c, run, parts);
  });
}
