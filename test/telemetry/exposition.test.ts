import { describe, expect, test } from "vitest";
import { processSamples } from "../../src/telemetry/process-series.ts";
import { Registry } from "../../src/telemetry/registry.ts";
import { series } from "../../src/telemetry/series.ts";
import { needs } from "../support/parts.ts";
import { readMetrics, valueOf } from "./readers.ts";

needs("telemetry");

describe("Prometheus' text form", () => {
  test("is read by Prometheus' own reader with the values that were counted", async () => {
    const registry = new Registry();
    const run = { target: "orders", trigger: "http", outcome: "applied" } as const;
    registry.record("lockkeeper_runs_total", run, 1);
    registry.record("lockkeeper_runs_total", run, 1);
    registry.record("lockkeeper_runs_total", { ...run, outcome: "noop" }, 1);
    for (const seconds of [0.05, 0.1, 40, 1e6])
      registry.record("lockkeeper_run_duration_seconds", { target: "orders" }, seconds);
    const text = registry.expose([
      ...processSamples("1.2.3"),
      { name: "lockkeeper_head_version", labels: { target: "orders" }, value: 20_261_121_010_203 },
    ]);
    const families = await readMetrics(text);
    expect(valueOf(families, "lockkeeper_runs_total", run)).toBe(2);
    expect(valueOf(families, "lockkeeper_runs_total", { ...run, outcome: "noop" })).toBe(1);
    expect(valueOf(families, "lockkeeper_head_version", { target: "orders" })).toBe(20_261_121_010_203);
    const node = process.versions.node;
    expect(valueOf(families, "lockkeeper_build_info", { version: "1.2.3", node })).toBe(1);
    expect(valueOf(families, "process_resident_memory_bytes")).toBeGreaterThan(1e6);
    const buckets = ["0.1", "15", "60", "+Inf"].map((le) =>
      valueOf(families, "lockkeeper_run_duration_seconds_bucket", { target: "orders", le }),
    );
    expect(buckets).toEqual([2, 2, 3, 4]);
    expect(valueOf(families, "lockkeeper_run_duration_seconds_sum", { target: "orders" })).toBe(1_000_040.15);
  });

  test("describes every series, also those without a value", async () => {
    const families = await readMetrics(new Registry().expose([]));
    const described = families.map(({ name, type, help }) => [name, type, help]);
    expect(described).toEqual(
      Object.entries(series).map(([name, { kind, help }]) => [
        // the reader takes a counter's ending for a part of the form
        kind === "counter" ? name.replace(/_total$/, "") : name,
        kind,
        help,
      ]),
    );
  });

  test("keeps labels as they are", async () => {
    const strange = ['a "quoted" one', String.raw`C:\new\table`, "two\nlines", "ü€😀", "{a=b},", '\\\n"', ""];
    const text = new Registry().expose(
      strange.map((target, value) => ({ name: "lockkeeper_target_up", labels: { target }, value })),
    );
    const families = await readMetrics(text);
    const values = strange.map((target) => valueOf(families, "lockkeeper_target_up", { target }));
    expect(values).toEqual([0, 1, 2, 3, 4, 5, 6]);
  });

  test("has no label by which anybody outside could make series without end", () => {
    const labels = new Set(
      Object.values(series).flatMap((definition): readonly string[] => definition.labels),
    );
    expect([...labels].toSorted()).toEqual([
      "kind",
      "method",
      "node",
      "outcome",
      "provider",
      "reason",
      "result",
      "route",
      "status",
      "target",
      "trigger",
      "version",
    ]);
  });
});
