import { describe, expect, test } from "vitest";
import { orderOf, requestOf } from "../../src/run/order.ts";
import type { ObservedRun, RunObserver } from "../../src/run/observer.ts";
import { createWorld, users, type World } from "./world.ts";

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/** A world whose runs are looked at. */
async function watched(): Promise<{ readonly world: World; readonly seen: readonly ObservedRun[] }> {
  const seen: ObservedRun[] = [];
  const observer: RunObserver = {
    begin(run) {
      seen.push(run);
      return { event: () => undefined, ended: () => undefined };
    },
  };
  const world = await createWorld({ target: { observers: [observer] } });
  await world.bucket.publish(users);
  return { world, seen };
}

const apply = { target: "orders", action: "apply" } as const;

describe("a caller's trace", () => {
  test("is told to whoever looks at the run, and stays with it for the next executor", async () => {
    const { world, seen } = await watched();
    const answer = await world.send("POST", "/v1/runs", { body: apply, headers: { traceparent } });
    expect(answer.body).toMatchObject({ outcome: "applied" });
    expect(seen).toMatchObject([{ id: answer.body.id, traceparent }]);
    const [row] = await world.database.query<{ order: unknown }>(
      'select run_order as "order" from lockkeeper.runs',
    );
    const run = await world.target.driver.run(answer.body.id, new AbortController().signal);
    if (run === undefined || row === undefined) throw new Error("the run has a row");
    const next = requestOf({ run, order: row.order, ageMs: 0, hasBegun: true });
    expect(next.traceparent).toBe(traceparent);
    expect(orderOf(next)).toMatchObject({ traceparent });
    expect(world.log.find(({ event }) => event === "http.request")?.fields).toMatchObject({
      trace_id: "4bf92f3577b34da6a3ce929d0e0e4736",
      route: "/v1/runs",
    });
  });

  test("that is none is as if it had not been sent", async () => {
    const { world, seen } = await watched();
    const headers = { traceparent: `${traceparent}-'; drop table runs` };
    const answer = await world.send("POST", "/v1/runs", { body: apply, headers });
    expect(answer.body).toMatchObject({ outcome: "applied" });
    expect(seen[0]).not.toHaveProperty("traceparent");
    expect(world.log.find(({ event }) => event === "http.request")?.fields).not.toHaveProperty("trace_id");
  });
});
