import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { needs } from "../support/parts.ts";
import { startCollector } from "../telemetry/collector.ts";
import { readMetrics, valueOf } from "../telemetry/readers.ts";
import { run, start, type Running } from "./program.ts";
import { servedFolder } from "./served.ts";

needs("telemetry");

const trace = "4bf92f3577b34da6a3ce929d0e0e4736";
const caller = "00f067aa0ba902b7";
const first = { "1_users.up.sql": "create table users (id int);" };
const second = { ...first, "2_orders.up.sql": "create table orders (id int);" };

/** One line of the log. */
type Line = Readonly<Record<string, unknown>>;

function linesOf(server: Running): readonly Line[] {
  return server
    .said()
    .stdout.split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Line);
}

async function lineOf(server: Running, event: string): Promise<Line> {
  const find = (): Line | undefined => linesOf(server).find((line) => line["event"] === event);
  await expect.poll(() => find() ?? server.said().stderr, { timeout: 60_000 }).toBeTypeOf("object");
  return find() ?? {};
}

/** A server for the target `orders`, whose metrics can be asked for, and which tells a collector. */
async function observed(variables: Readonly<Record<string, string>> = {}) {
  const { folder, argv, database, issuer, publish } = await servedFolder("metrics: 127.0.0.1:0");
  await publish(first);
  const collector = await startCollector();
  const server = start(argv, folder, { OTEL_EXPORTER_OTLP_ENDPOINT: collector.url, ...variables });
  const { url, metrics } = await lineOf(server, "server.started");
  return {
    database,
    folder,
    collector,
    server,
    publish: () => publish(second),
    async apply(body: Readonly<Record<string, unknown>> = {}) {
      const answer = await fetch(`${String(url)}/v1/runs`, {
        method: "POST",
        headers: {
          authorization: `Bearer ${await issuer.token()}`,
          "content-type": "application/json",
          traceparent: `00-${trace}-${caller}-01`,
        },
        body: JSON.stringify({ target: "orders", action: "apply", ...body }),
      });
      return (await answer.json()) as Line;
    },
    get: (path: string) => fetch(`${String(url)}${path}`),
    scrape: () => fetch(String(metrics)),
  };
}

// processes of their own, on a machine that may be busy
describe("a server that is looked at", { timeout: 180_000 }, () => {
  test("counts what it does, and says what its databases say, also of what others did", async () => {
    const { apply, scrape, get, publish, folder, server } = await observed();
    const target = "orders";
    let families: Awaited<ReturnType<typeof readMetrics>> = [];
    const gauge = (name: string) => async (): Promise<number | undefined> => {
      const answer = await scrape();
      expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
      families = await readMetrics(await answer.text());
      return valueOf(families, name, { target });
    };
    const patience = { timeout: 120_000, interval: 1_000 };
    await expect.poll(gauge("lockkeeper_pending_migrations"), patience).toBe(1);
    expect(valueOf(families, "lockkeeper_target_up", { target })).toBe(1);

    expect(await apply()).toMatchObject({ status: "succeeded", outcome: "applied" });
    expect((await get("/health/live")).status).toBe(200);
    expect((await get("/made/up/by/a/stranger")).status).toBe(404);
    expect((await get("/metrics")).status).toBe(404);
    await publish();
    const up = ["converge", "--config", "lockkeeper.yaml", "--target", "orders"];
    expect(await run(up, folder)).toMatchObject({ code: 0 });

    // a look is kept for some seconds
    await expect.poll(gauge("lockkeeper_database_version"), patience).toBe(2);
    const seen = (name: string, labels: Readonly<Record<string, string>>) => valueOf(families, name, labels);
    expect(seen("lockkeeper_runs_total", { target, trigger: "http", outcome: "applied" })).toBe(1);
    expect(seen("lockkeeper_run_duration_seconds_count", { target })).toBe(1);
    expect(seen("lockkeeper_lock_wait_seconds_count", { target })).toBe(1);
    expect(seen("lockkeeper_migrations_applied_total", { target, kind: "up" })).toBe(1);
    expect(seen("lockkeeper_head_version", { target })).toBe(2);
    expect(seen("lockkeeper_pending_migrations", { target })).toBe(0);
    expect(seen("lockkeeper_last_run_failed", { target })).toBe(0);
    const asked = "lockkeeper_http_requests_total";
    expect(seen(asked, { method: "POST", route: "/v1/runs", status: "200" })).toBe(1);
    expect(seen(asked, { method: "GET", route: "/health/live", status: "200" })).toBe(1);
    expect(seen(asked, { method: "GET", route: "none", status: "404" })).toBe(2);
    expect(
      seen("lockkeeper_http_request_duration_seconds_count", { method: "POST", route: "/v1/runs" }),
    ).toBe(1);

    const line = linesOf(server).find(({ route }) => route === "/v1/runs") ?? {};
    const page = readFileSync(join(import.meta.dirname, "../../infra/observability.md"), "utf8");
    const shown = /^{.*"event":"http\.request".*}$/m.exec(page)?.[0] ?? "{}";
    expect(Object.keys(JSON.parse(shown) as Line)).toEqual(Object.keys(line));

    server.child.kill("SIGTERM");
    expect(await server.ended).toBe(0);
    await expect(scrape()).rejects.toThrow("fetch failed");
  });

  test("puts a run into its caller's trace, and says so in every line of it, also by Google's names on Cloud Run", async () => {
    const { apply, collector, server } = await observed({
      OTEL_BSP_SCHEDULE_DELAY: "200",
      K_SERVICE: "lockkeeper",
      GOOGLE_CLOUD_PROJECT: "shop-1",
    });
    const { id } = await apply();
    const span = await collector.span("lockkeeper.run orders");
    expect(span).toMatchObject({
      traceId: trace,
      parentSpanId: caller,
      // SERVER
      kind: 2,
      attributes: { "lockkeeper.run.id": id, "lockkeeper.trigger": "http" },
    });
    const lines = linesOf(server).filter((line) => line["run"] === id && line["event"] !== "audit");
    expect(lines.map(({ event }) => event)).toEqual(
      expect.arrayContaining(["run.started", "step.succeeded", "run.done", "http.request"]),
    );
    for (const line of lines) {
      expect(line).toMatchObject({
        level: "info",
        trace_id: trace,
        span_id: span.spanId,
        severity: "INFO",
        "logging.googleapis.com/trace": `projects/shop-1/traces/${trace}`,
        "logging.googleapis.com/spanId": span.spanId,
      });
    }
    const done = lines.find(({ event }) => event === "run.done");
    expect(done).toMatchObject({ message: "run.done orders", outcome: "applied", trigger: "http" });

    const unknown = { digest: `sha256:${"0".repeat(64)}` };
    expect(await apply({ release: unknown })).toMatchObject({ code: "RELEASE_NOT_FOUND" });
    expect(linesOf(server).findLast(({ event }) => event === "run.done")).toMatchObject({
      severity: "WARNING",
      outcome: "refused",
      code: "RELEASE_NOT_FOUND",
      sqlstate: null,
      retryable: false,
      attempt: 1,
      trigger: "http",
    });
    server.child.kill("SIGTERM");
    expect(await server.ended).toBe(0);
    expect(collector.metrics()).toEqual(
      expect.arrayContaining([
        "lockkeeper.runs",
        "lockkeeper.pending.migrations",
        "lockkeeper.http.requests",
      ]),
    );
  });
});
