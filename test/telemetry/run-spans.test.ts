import { SpanKind, SpanStatusCode } from "@opentelemetry/api";
import {
  InMemorySpanExporter,
  SimpleSpanProcessor,
  TracerProvider,
  type ReadableSpan,
} from "@opentelemetry/sdk-trace";
import { describe, expect, test } from "vitest";
import { RunnerError } from "../../src/error.ts";
import { RunTracer } from "../../src/telemetry/run-tracer.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import type { MigrationText } from "../support/plain-release.ts";
import { openTarget, tableMigrations, type PlainTarget } from "../support/target.ts";

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const spanId = "00f067aa0ba902b7";
const traceparent = `00-${traceId}-${spanId}-01`;

/** A target whose runs are traced, and the spans that have ended. */
async function traced(texts: readonly MigrationText[]): Promise<{
  readonly target: PlainTarget;
  readonly database: TestDatabase;
  readonly tracer: RunTracer;
  spans(): readonly ReadableSpan[];
  root(): ReadableSpan;
}> {
  const exporter = new InMemorySpanExporter();
  const provider = new TracerProvider({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
  const tracer = new RunTracer(provider.getTracer("test"), undefined);
  const database = await createDatabase();
  const target = await openTarget(database.url, texts, { observers: [tracer] });
  return {
    target,
    database,
    tracer,
    spans: () => exporter.getFinishedSpans(),
    root() {
      const found = exporter.getFinishedSpans().findLast(({ name }) => name === "lockkeeper.run t");
      if (found === undefined) throw new Error("the run has ended");
      return found;
    },
  };
}

const nanos = ([seconds, rest]: readonly [number, number]): bigint =>
  BigInt(seconds) * 1_000_000_000n + BigInt(rest);

describe("a run's span", () => {
  test("is below its caller's, and only linked to what sent an event", async () => {
    const { target, root, tracer } = await traced(tableMigrations(2));
    const one = { goal: { kind: "steps", direction: "up", count: 1 }, traceparent } as const;
    const { runId } = await target.run({ ...one, trigger: "http" });
    const asked = root();
    expect(asked).toMatchObject({ kind: SpanKind.SERVER, parentSpanContext: { traceId, spanId }, links: [] });
    expect(asked.spanContext().traceId).toBe(traceId);
    expect(tracer.placeOf(runId)).toEqual({ traceId, spanId: asked.spanContext().spanId, isSampled: true });

    await target.run({ ...one, trigger: "event" });
    const woken = root();
    expect(woken.kind).toBe(SpanKind.CONSUMER);
    expect(woken.parentSpanContext).toBeUndefined();
    expect(woken.spanContext().traceId).not.toBe(traceId);
    expect(woken.links).toMatchObject([{ context: { traceId, spanId } }]);
  });

  test("is left out where its caller's trace is not recorded", async () => {
    const { target, spans } = await traced(tableMigrations(1));
    await target.run({ trigger: "http", traceparent: `00-${traceId}-${spanId}-00` });
    expect(spans()).toEqual([]);
  });

  test("holds its migrations one after the other, also where the driver sends many in one message", async () => {
    const { target, spans, root } = await traced(tableMigrations(60));
    expect(await target.run()).toMatchObject({ outcome: "applied" });
    const steps = spans().filter(({ name }) => name.startsWith("lockkeeper.migration "));
    expect(steps).toHaveLength(60);
    let before = nanos(root().startTime);
    for (const { startTime, endTime } of steps) {
      expect(nanos(startTime)).toBeGreaterThanOrEqual(before);
      expect(nanos(endTime)).toBeGreaterThanOrEqual(nanos(startTime));
      before = nanos(endTime);
    }
    expect(nanos(root().endTime)).toBeGreaterThanOrEqual(before);
  });

  test("of which nothing was to do has no migrations and no error", async () => {
    const { target, spans, root } = await traced(tableMigrations(1));
    await target.run();
    const before = spans().length;
    expect(await target.run()).toMatchObject({ outcome: "noop" });
    const names = spans()
      .slice(before)
      .map(({ name }) => name);
    expect(names.filter((name) => name.startsWith("lockkeeper.migration"))).toEqual([]);
    expect(root()).toMatchObject({
      status: { code: SpanStatusCode.UNSET },
      attributes: { "lockkeeper.outcome": "noop" },
    });
  });

  test("that is stopped in a migration names why on both; one that is handed over has not failed", async () => {
    const gate = { path: "1_gate.up.sql", up: "SELECT pg_advisory_xact_lock(42);", down: "SELECT 1;" };
    for (const code of ["CANCELED", "HANDED_OVER"] as const) {
      const { target, spans, root, database } = await traced([gate]);
      const client = await database.connect();
      await client.query("SELECT pg_advisory_lock(42)");
      const stop = new AbortController();
      const running = target.run({ isAccepted: code === "HANDED_OVER" }, stop.signal);
      const waiting = `select from pg_locks where locktype = 'advisory' and objid = 42 and not granted
        and database = (select oid from pg_database where datname = current_database())`;
      await expect.poll(async () => (await client.query(waiting)).rowCount, { timeout: 30_000 }).toBe(1);
      stop.abort(new RunnerError(code, "stop"));
      const { error } = await running;
      const step = spans().find(({ name }) => name.startsWith("lockkeeper.migration"));
      expect(step).toMatchObject({
        status: { code: SpanStatusCode.ERROR },
        attributes: { "error.type": error?.code },
      });
      expect(root().status.code).toBe(code === "CANCELED" ? SpanStatusCode.ERROR : SpanStatusCode.UNSET);
    }
  });
});
