import { describe, expect, test } from "vitest";
import { formatDuration } from "../../src/report/duration.ts";
import { jsonLines, plainLines, withoutRepeats } from "../../src/report/lines.ts";
import { formatBar, progressBar } from "../../src/report/progress.ts";
import type { RunEvent } from "../../src/executor/event.ts";
import type { Sink } from "../../src/report/sink.ts";

const step = { path: "000001_users.up.sql", version: "000001", direction: "up" } as const;
const run: readonly RunEvent[] = [
  { kind: "run.started", runId: "orders.1", target: "orders" },
  { kind: "warning", message: "an odd file in postgres://u:hunter2@h/d" },
  { kind: "step.started", ...step, index: 0, total: 2 },
  { kind: "step.succeeded", ...step, durationMs: 12, done: 1, total: 2 },
  { kind: "step.failed", ...step, code: "MIGRATION_FAILED", message: "no such table", fields: {} },
  {
    kind: "run.done",
    runId: "orders.1",
    status: "failed",
    outcome: "failed",
    trigger: "cli",
    attempt: 1,
    release: null,
    from: null,
    to: "000001",
    applied: 1,
    durationMs: 15,
    error: { code: "MIGRATION_FAILED", sqlstate: null, retryable: false },
  },
];

describe("a bar", () => {
  test.for<[number, number, string | null, number, string]>([
    [0, 4, "a.sql", 80, "[------------------------] 0/4 a.sql 1.2 s"],
    [1, 4, "a.sql", 80, "[######------------------] 1/4 a.sql 1.2 s"],
    [4, 4, null, 80, "[########################] 4/4 1.2 s"],
    [0, 0, null, 80, "[########################] 0/0 1.2 s"],
    [1, 4, "a-name-that-does-not-fit.sql", 50, "[######------------------] 1/4 1.2 s"],
    [1, 4, "a.sql", 10, "[######--"],
  ])("at %i of %i with %s in %i columns", ([done, total, current, columns, expected]) => {
    expect(formatBar(done, total, current, 1_234, columns)).toBe(expected);
  });

  test("stays on the last line, under warnings, and leaves nothing behind", () => {
    const sink = screen();
    const reporter = progressBar(sink, false, () => 0);
    for (const event of run) reporter.emit(event);
    expect(sink.lines()).toEqual([
      "warning: an odd file in postgres://u:***@h/d",
      "[------------------------] 0/2 000001_users.up.sql 0 ms",
    ]);
    reporter.end();
    expect(sink.lines()).toEqual(["warning: an odd file in postgres://u:***@h/d", ""]);
  });

  test("is drawn a few times a second, however many steps there are", () => {
    const sink = screen();
    let clock = 0;
    const reporter = progressBar(sink, false, () => clock);
    for (let done = 1; done <= 10_000; done++) {
      clock += 0.1;
      reporter.emit({ kind: "step.succeeded", ...step, durationMs: 0, done, total: 10_000 });
    }
    reporter.end();
    expect(sink.writes()).toBeLessThan(30);
  });
});

describe("lines", () => {
  test("of a backfill come every ten seconds, and the last one always; the bar shows it in its place", () => {
    const lines = screen();
    const bar = screen();
    let clock = 0;
    const reporters = [plainLines(lines, false, () => clock), progressBar(bar, false, () => clock)];
    const emit = (event: RunEvent) => reporters.forEach((reporter) => reporter.emit(event));
    emit({ kind: "step.started", ...step, index: 0, total: 1 });
    for (let second = 1; second <= 25; second += 1) {
      clock = second * 1_000;
      const progress = { rows: second * 10, rowsPerSecond: 10, secondsLeft: 25 - second, isThrottled: false };
      emit({ kind: "backfill.progress", path: "b.sql", ...progress, fraction: second / 25 });
      if (second === 24)
        expect(bar.lines()).toEqual([
          "[------------------------] 0/1 240 rows, 96 %, 10 rows/s, 1.0 s left 24.0 s",
        ]);
    }
    expect(lines.lines()).toEqual([
      "b.sql 10 rows, 4 %, 10 rows/s, 24.0 s left",
      "b.sql 110 rows, 44 %, 10 rows/s, 14.0 s left",
      "b.sql 210 rows, 84 %, 10 rows/s, 4.0 s left",
      "b.sql 250 rows, 100 %, 10 rows/s, 0 ms left",
      "",
    ]);
    reporters.forEach((reporter) => reporter.end());
  });

  test("of words tell what was done, and with --verbose everything", () => {
    const brief = screen();
    const full = screen();
    for (const event of run) {
      plainLines(brief, false, () => 0).emit(event);
      plainLines(full, true, () => 0).emit(event);
    }
    expect(brief.lines()).toEqual([
      "warning: an odd file in postgres://u:***@h/d",
      "000001_users.up.sql applied in 12 ms (1/2)",
      "",
    ]);
    expect(full.lines()).toEqual([
      "run orders.1 on orders",
      "warning: an odd file in postgres://u:***@h/d",
      "000001_users.up.sql begins (1/2)",
      "000001_users.up.sql applied in 12 ms (1/2)",
      "run orders.1 failed, failed",
      "",
    ]);
  });

  test("of JSON hold every event with its time, and no password", () => {
    const sink = screen();
    const reporter = jsonLines(sink, () => new Date("2026-11-20T10:00:00Z"));
    for (const event of run) reporter.emit(event);
    const parsed = sink
      .lines()
      .slice(0, -1)
      .map((line): unknown => JSON.parse(line));
    expect(parsed).toHaveLength(run.length);
    expect(parsed[3]).toEqual({ at: "2026-11-20T10:00:00.000Z", ...run[3] });
    expect(sink.lines().join("\n")).not.toContain("hunter2");
  });

  test("of waiting come once for each holder, and again when it takes long", () => {
    const told: string[] = [];
    let clock = 0;
    const emit = withoutRepeats(
      (event) => told.push(event.kind === "lease.waiting" ? event.runId : event.kind),
      () => clock,
    );
    const since = new Date(0);
    for (let second = 0; second < 40; second++) {
      clock = second * 1_000;
      emit({ kind: "lease.waiting", holder: "host/1", runId: second < 35 ? "first" : "second", since });
    }
    emit({ kind: "lease.acquired", token: 2 });
    expect(told).toEqual(["first", "first", "first", "second", "lease.acquired"]);
  });

  test("of progress come once a second, and when all is done", () => {
    const sink = screen();
    let clock = 0;
    const reporter = plainLines(sink, false, () => clock);
    for (let done = 1; done <= 100; done++) {
      clock += 50;
      reporter.progress(done, 100, null);
    }
    expect(sink.lines()).toEqual([
      "1/100 done",
      "21/100 done",
      "41/100 done",
      "61/100 done",
      "81/100 done",
      "100/100 done",
      "",
    ]);
  });
});

describe("a duration", () => {
  test.for<[number, string]>([
    [0.4, "0 ms"],
    [999, "999 ms"],
    [1_000, "1.0 s"],
    [59_949, "59.9 s"],
    [61_000, "1 m 1 s"],
    [3_600_000, "1 h 0 m"],
  ])("of %d ms is %s", ([ms, expected]) => {
    expect(formatDuration(ms)).toBe(expected);
  });
});

/** A terminal that knows "back to the line's start" and "clear the line". */
function screen(): Sink & { lines(): readonly string[]; writes(): number } {
  let text = "";
  let writes = 0;
  return {
    isTerminal: true,
    columns: 80,
    write(more) {
      text += more;
      writes++;
    },
    writes: () => writes,
    lines: () => text.split("\n").map((line) => line.split("\r\u001b[2K").at(-1) ?? ""),
  };
}
