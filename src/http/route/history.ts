import type { Hono } from "hono";
import * as v from "valibot";
import { authorize } from "../auth/access.ts";
import { readQuery, wholeNumber } from "../body.ts";
import type { HttpEnv, HttpParts } from "../context.ts";
import { within } from "../../dispatch/patience.ts";
import { runId } from "../run-request.ts";
import { viewEntry } from "../view.ts";

const maxPage = 100;
const querySchema = v.pipe(
  v.strictObject({
    run: v.optional(runId),
    last: v.optional(wholeNumber(1, maxPage)),
    pageSize: v.optional(wholeNumber(1, maxPage)),
    pageToken: v.optional(wholeNumber(0, 999_999_999)),
  }),
  v.check(
    ({ last, pageSize, pageToken }) =>
      last === undefined || (pageSize === undefined && pageToken === undefined),
    "?last= is a page of its own and goes with neither pageSize nor pageToken",
  ),
);

/** `GET /v1/targets/{name}/history`: what was done, oldest first; `?last=20` are the newest twenty. */
export function addHistoryRoute(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.get("/v1/targets/:name/history", async (c) => {
    const { target } = authorize(c, parts, { action: "status", target: c.req.param("name") });
    const { run, last, pageSize = maxPage, pageToken = 0 } = readQuery(c, querySchema);
    const query = {
      ...(run === undefined ? {} : { runId: run }),
      ...(last === undefined ? { afterId: pageToken } : { last }),
    };
    const found = await within(
      parts.limits.readMs,
      (signal) => target.driver.history(target.stream, query, signal),
      c.req.raw.signal,
    );
    const page = last === undefined ? found.slice(0, pageSize) : found;
    const nextPageToken = found.length > page.length ? String(page.at(-1)?.id ?? "") : null;
    if (nextPageToken !== null) {
      c.header(
        "link",
        `<${parts.links.history(target.name, { ...c.req.query(), pageToken: nextPageToken })}>; rel="next"`,
      );
    }
    return c.json({ target: target.name, history: page.map(viewEntry), nextPageToken });
  });
}
