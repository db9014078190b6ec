import { describe, expect, test } from "vitest";
import { openObservers } from "../../src/bin/open-observers.ts";
import { folderWith, run } from "../bin/program.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { freePort } from "../support/server.ts";
import { needs } from "../support/parts.ts";
import { startCollector, type Collector, type Span } from "./collector.ts";
import { assertOtlp } from "./readers.ts";

needs("telemetry");

const trace = "0af7651916cd43dd8448eb211c80319c";
const parent = "b7ad6b7169203331";
const secret = "hunter2-in-a-literal";

const files = {
  "m/1_users.up.sql": `create table users (id int, note text default '${secret}');`,
  "m/2_orders.up.sql": "create table orders (id int);",
  "m/3_index.up.sql": "-- lockkeeper:tx=none\ncreate index concurrently on orders (id);",
};

/** `lockkeeper up` over files, as a pipeline calls it. */
async function up(
  variables: Readonly<Record<string, string>>,
  changes: Readonly<Record<string, string>> = {},
): Promise<{ readonly code: number; readonly stderr: string; readonly database: TestDatabase }> {
  const database = await createDatabase();
  const folder = await folderWith({ ...files, ...changes });
  const ended = await run(["up", "--source", "m", "--unsigned"], folder, {
    ...variables,
    DATABASE_URL: database.url,
  });
  return { ...ended, database };
}

function tracedTo({ url }: Pick<Collector, "url">): Readonly<Record<string, string>> {
  return {
    OTEL_EXPORTER_OTLP_ENDPOINT: url,
    OTEL_EXPORTER_OTLP_HEADERS: "x-token=of-a-tenant",
    OTEL_SERVICE_NAME: "migrations",
    OTEL_RESOURCE_ATTRIBUTES: "team=shop",
    TRACEPARENT: `00-${trace}-${parent}-01`,
  };
}

const nanos = (text: string): bigint => BigInt(text);

// processes of their own, on a machine that may be busy
describe("a run in a pipeline", { timeout: 180_000 }, () => {
  test("is in the pipeline's trace, phase by phase and migration by migration, without a word of its SQL", async () => {
    const collector = await startCollector();
    expect(await up(tracedTo(collector))).toMatchObject({
      code: 0,
      stderr: expect.not.stringContaining("warning"),
    });
    await assertOtlp(collector.received);
    expect(new Set(collector.received.map(({ token }) => token))).toEqual(new Set(["of-a-tenant"]));
    expect(collector.resource()).toMatchObject({ "service.name": "migrations", team: "shop" });

    const [root, ...others] = collector
      .spans()
      .toSorted((a, b) => Number(a.parentSpanId !== parent) - Number(b.parentSpanId !== parent));
    expect(root).toMatchObject({ traceId: trace, parentSpanId: parent, status: { code: 0 } });
    expect(root?.name).toMatch(/^lockkeeper\.run /);
    expect(root?.attributes).toMatchObject({
      "lockkeeper.trigger": "cli",
      "lockkeeper.outcome": "applied",
      "lockkeeper.migrations.applied": 3,
    });
    expect(others.map(({ name }) => name).toSorted((a, b) => a.localeCompare(b))).toEqual([
      "lockkeeper.bodies.fetch",
      "lockkeeper.lock.wait",
      "lockkeeper.migration 1_users.up.sql",
      "lockkeeper.migration 2_orders.up.sql",
      "lockkeeper.migration 3_index.up.sql",
      "lockkeeper.release.fetch",
    ]);
    for (const span of others) {
      expect(span).toMatchObject({ traceId: trace, parentSpanId: root?.spanId });
      expect(nanos(span.startTimeUnixNano)).toBeGreaterThanOrEqual(nanos(root?.startTimeUnixNano ?? "0"));
      expect(nanos(span.endTimeUnixNano)).toBeGreaterThanOrEqual(nanos(span.startTimeUnixNano));
      expect(nanos(root?.endTimeUnixNano ?? "0")).toBeGreaterThanOrEqual(nanos(span.endTimeUnixNano));
    }
    const sent = collector.received.map(({ body }) => body).join("\n");
    for (const word of [secret, "create table", "postgres://"]) expect(sent).not.toContain(word);
    expect(collector.metrics()).toEqual(
      expect.arrayContaining([
        "lockkeeper.runs",
        "lockkeeper.run.duration",
        "lockkeeper.lock.wait",
        "lockkeeper.migrations.applied",
      ]),
    );
  });

  test("that fails names our code and the database's on the migration and on the run", async () => {
    const collector = await startCollector();
    const ended = await up(tracedTo(collector), { "m/2_orders.up.sql": "create table users (id int);" });
    expect(ended.code).toBe(21);
    const failed = (span: Span | undefined): void => {
      expect(span?.status).toMatchObject({ code: 2, message: expect.stringMatching(/^MIGRATION_FAILED: /) });
      expect(span?.attributes).toMatchObject({
        "error.type": "MIGRATION_FAILED",
        "db.response.status_code": "42P07",
      });
    };
    failed(collector.spans().find(({ name }) => name === "lockkeeper.migration 2_orders.up.sql"));
    failed(collector.spans().find(({ name }) => name.startsWith("lockkeeper.run ")));
    expect(collector.spans().map(({ name }) => name)).not.toContain("lockkeeper.migration 3_index.up.sql");
  });

  test.for([
    ["hangs", "it did not answer in time"],
    ["is dead", "ECONNREFUSED"],
  ] as const)("is the same run where the collector %s, and says so once", async ([how, reason]) => {
    const url = how === "hangs" ? (await startCollector(false)).url : `http://127.0.0.1:${await freePort()}`;
    const { code, stderr, database } = await up(tracedTo({ url }));
    expect(code).toBe(0);
    expect(
      await database.query("select count(*)::int as n from lockkeeper.history where status = 'done'"),
    ).toEqual([{ n: 3 }]);
    expect(stderr.match(/traces were not taken/g)).toHaveLength(1);
    expect(stderr).toContain(`warning: traces were not taken by the OpenTelemetry collector: ${reason}`);
    expect(stderr).not.toMatch(/of-a-tenant|\n\s+at /);
  });

  test("takes rubbish in the variables as if nothing were said", async () => {
    const collector = await startCollector();
    const { code, stderr } = await up({
      ...tracedTo(collector),
      OTEL_TRACES_SAMPLER: "__proto__",
      OTEL_TRACES_SAMPLER_ARG: "most",
      OTEL_BSP_SCHEDULE_DELAY: "99999999999",
      OTEL_METRIC_EXPORT_INTERVAL: "99999999999",
      TRACEPARENT: `00-${"0".repeat(32)}-${parent}-01`,
    });
    expect({ code, stderr }).toEqual({ code: 0, stderr: expect.not.stringMatching(/warning/i) });
    expect(collector.spans().find(({ name }) => name.startsWith("lockkeeper.run "))?.parentSpanId).toBe(
      undefined,
    );
  });

  test("is told to nobody where no end point is named, or the SDK is disabled, and nothing is loaded", async () => {
    const endpoint = { OTEL_EXPORTER_OTLP_ENDPOINT: "http://127.0.0.1:4318" };
    for (const variables of [{}, { OTEL_SERVICE_NAME: "x" }, { ...endpoint, OTEL_SDK_DISABLED: "TRUE" }]) {
      const { observers } = await openObservers({
        variables,
        config: () => Promise.resolve(undefined),
        log: () => undefined,
      });
      expect(observers).toEqual([]);
    }
  });
});
