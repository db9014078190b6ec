import { describe, expect, test } from "vitest";
import { description, differences } from "./described.ts";
import { createWorld, openBarrier, orders, users, type World } from "./world.ts";

const apply = { target: "orders", action: "apply" };

interface SentEvent {
  readonly id: number | null;
  readonly event: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- held against the description below
  readonly data: any;
}

/** Server-sent events as a browser would read them. */
function parseSse(text: string): readonly SentEvent[] {
  return text
    .split("\n\n")
    .filter((block) => block !== "" && !block.startsWith(":"))
    .map((block) => {
      const lines = new Map(
        block
          .split("\n")
          .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 2)]),
      );
      const event = {
        id: lines.has("id") ? Number(lines.get("id")) : null,
        event: lines.get("event") ?? "",
        data: JSON.parse(lines.get("data") ?? ""),
      };
      expect(differences(description.components.schemas["RunEvent"] ?? {}, event, "")).toEqual([]);
      return event;
    });
}

async function appliedRun(world: World): Promise<string> {
  await world.bucket.publish({ ...users, ...orders });
  return (await world.send("POST", "/v1/runs", { body: apply })).body.id;
}

/** A stream that is being read. */
interface Reading {
  /** everything so far, at least up to a text, or up to the end */
  until(isThere: (read: string) => boolean): Promise<string>;
  leave(): Promise<void>;
}

async function open(world: World, path: string, headers: Record<string, string> = {}): Promise<Reading> {
  const response = await world.app.hono.request(path, {
    headers: { authorization: `Bearer ${await world.token()}`, ...headers },
  });
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let read = "";
  return {
    async until(isThere) {
      while (!isThere(read)) {
        const next = await reader?.read();
        if (next?.value === undefined) break;
        read += next.value;
      }
      return read;
    },
    leave: async () => reader?.cancel(),
  };
}

/** Reads a stream until all these texts have turned up, then leaves. */
async function readUntil(
  world: World,
  path: string,
  texts: readonly string[],
  headers: Record<string, string> = {},
): Promise<string> {
  const reading = await open(world, path, headers);
  const read = await reading.until((all) => texts.every((text) => all.includes(text)));
  await reading.leave();
  for (const text of texts) expect(read).toContain(text);
  return read;
}

describe("GET /v1/runs/{id}/events", () => {
  test("tells each step with its history id, and the end last", async () => {
    const world = await createWorld();
    const id = await appliedRun(world);
    const { status, text, headers } = await world.send("GET", `/v1/runs/${id}/events`);
    expect(status).toBe(200);
    expect(headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
    expect(headers.get("cache-control")).toBe("no-store");
    const events = parseSse(text);
    const history = await world.database.query<{ id: string }>(
      "select id from lockkeeper.history order by id",
    );
    expect(events.map(({ id: eventId, event }) => [eventId, event])).toEqual([
      [null, "run.status"],
      [Number(history[0]?.id), "step.succeeded"],
      [Number(history[1]?.id), "step.succeeded"],
      [null, "run.done"],
    ]);
    expect(events[1]?.data).toMatchObject({
      path: "1_users.up.sql",
      direction: "up",
      status: "done",
      run: id,
    });
    expect(events.at(-1)?.data).toMatchObject({ id, status: "succeeded", outcome: "applied" });
  });

  test("goes on after the event that was seen last", async () => {
    const world = await createWorld();
    const id = await appliedRun(world);
    const all = parseSse((await world.send("GET", `/v1/runs/${id}/events`)).text);
    const first = all.find(({ id: eventId }) => eventId !== null);
    const rest = await world.send("GET", `/v1/runs/${id}/events`, {
      headers: { "last-event-id": String(first?.id) },
    });
    expect(
      parseSse(rest.text)
        .map(({ data }) => data.path)
        .filter(Boolean),
    ).toEqual(["2_orders.up.sql"]);
    const wrong = await world.send("GET", `/v1/runs/${id}/events`, { headers: { "last-event-id": "x" } });
    expect([wrong.status, wrong.body.code]).toEqual([400, "INVALID_REQUEST"]);
  });

  test("come as NDJSON where that is accepted", async () => {
    const world = await createWorld();
    const id = await appliedRun(world);
    const { text, headers } = await world.send("GET", `/v1/runs/${id}/events`, {
      headers: { accept: "application/x-ndjson" },
    });
    expect(headers.get("content-type")).toBe("application/x-ndjson");
    const events = text
      .trimEnd()
      .split("\n")
      .map((line): SentEvent => JSON.parse(line));
    expect(events.map(({ event }) => event)).toEqual([
      "run.status",
      "step.succeeded",
      "step.succeeded",
      "run.done",
    ]);
    for (const event of events)
      expect(differences(description.components.schemas["RunEvent"] ?? {}, event, "")).toEqual([]);
  });

  test("tell a failed step with its place, but not its SQL", async () => {
    const world = await createWorld();
    await world.bucket.publish({
      "1_bad.up.sql": "create table t (id int);\nselect secret_column from t;\n",
    });
    const { body: run } = await world.send("POST", "/v1/runs", { body: apply });
    const events = parseSse((await world.send("GET", `/v1/runs/${run.id}/events`)).text);
    const failed = events.find(({ event }) => event === "step.failed");
    expect(failed?.data).toMatchObject({
      path: "1_bad.up.sql",
      status: "failed",
      error: { code: "MIGRATION_FAILED", fields: { sqlstate: "42703", line: 2 } },
    });
    expect(events.at(-1)?.event).toBe("run.done");
  });

  test("come while the run goes on, with signs of life in between", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish({ ...barrier.migration, ...orders });
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: apply,
      headers: { prefer: "respond-async" },
    });
    const live = world.send("GET", `/v1/runs/${run.id}/events`);
    await barrier.reached();
    // In whichever order: a busy database may take longer for its first answer than a sign of life waits.
    await readUntil(world, `/v1/runs/${run.id}/events`, [": heartbeat", "event: run.status"]);
    await readUntil(world, `/v1/runs/${run.id}/events`, ['"heartbeat"', '"event":"run.status"'], {
      accept: "application/x-ndjson",
    });
    await barrier.release();
    const events = parseSse((await live).text);
    expect(events.filter(({ event }) => event === "step.succeeded").map(({ data }) => data.path)).toEqual([
      "1_barrier.up.sql",
      "2_orders.up.sql",
    ]);
    expect(events.at(-1)?.event).toBe("run.done");
  });

  test("show a migration outside a transaction as it advances, under one id", async () => {
    const world = await createWorld();
    const barrier = await openBarrier(world);
    await world.bucket.publish({
      "1_index.up.sql":
        "-- lockkeeper: tx=none\ncreate table t (id int);\nselect pg_advisory_xact_lock(42);\ncreate index concurrently i on t (id);\n",
    });
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: apply,
      headers: { prefer: "respond-async" },
    });
    await barrier.reached();
    const seen = await readUntil(world, `/v1/runs/${run.id}/events`, ["step.started"]);
    await barrier.release();
    const started = parseSse(seen.slice(0, seen.lastIndexOf("\n\n") + 2)).find(
      ({ event }) => event === "step.started",
    );
    expect(started).toMatchObject({
      id: null,
      data: { path: "1_index.up.sql", statements: { done: 1, total: 3 } },
    });
    const events = parseSse((await world.send("GET", `/v1/runs/${run.id}/events`)).text);
    const done = events.find(({ event }) => event === "step.succeeded");
    expect(done).toMatchObject({ id: started?.data.id, data: { statements: { done: 3, total: 3 } } });
    expect(events.at(-1)).toMatchObject({ event: "run.done", data: { status: "succeeded" } });
  });

  test("end without run.done when the stream's time is over, so that the caller comes again with a fresh token", async () => {
    const world = await createWorld({ limits: { streamMs: 300 } });
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: apply,
      headers: { prefer: "respond-async" },
    });
    const { text } = await world.send("GET", `/v1/runs/${run.id}/events`);
    expect(text).toContain("event: run.status");
    expect(text).not.toContain("run.done");
    await barrier.release();
  });

  test("stop being looked up when the watcher leaves", async () => {
    const world = await createWorld({ limits: { watchers: 1 } });
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: apply,
      headers: { prefer: "wait=0" },
    });
    for (const _ of [1, 2, 3]) await readUntil(world, `/v1/runs/${run.id}/events`, ["run.status"]);
    await barrier.release();
  });

  test("end with the problem when the database goes away", async () => {
    const world = await createWorld();
    const watcher = await world.replica();
    // Nothing of the test's own holds it up: what the drop ends first would let it go on.
    await world.bucket.publish({ "1_slow.up.sql": "select pg_sleep(60);" });
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: apply,
      headers: { prefer: "respond-async" },
    });
    const sleeping =
      "select from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    await expect.poll(() => world.database.query(sleeping)).toHaveLength(1);
    const watching = await open(watcher, `/v1/runs/${run.id}/events`);
    await watching.until((read) => read.includes("run.status"));
    await world.database.drop();
    const last = parseSse(await watching.until(() => false)).at(-1);
    expect(last).toMatchObject({ event: "problem", data: { code: expect.stringMatching(/^DATABASE_/) } });
  });

  test("of a run that is not there are a plain 404", async () => {
    const world = await createWorld();
    const { status, body } = await world.send("GET", "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV/events");
    expect([status, body.code]).toEqual([404, "UNKNOWN_RUN"]);
  });
});
