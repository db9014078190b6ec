import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";

import type { HistoryEntry } from "../../src/history/entry.ts";
import { explainPlanChange } from "../../src/plan/changed-plan.ts";
import { continues, rewritten } from "../../src/plan/continuity.ts";
import { makePlan, planDigest, positionAt } from "../../src/plan/make-plan.ts";
import type { Goal, Plan } from "../../src/plan/plan.ts";
import type { Release } from "../../src/release/release.ts";
import { makeRelease } from "../support/plain-release.ts";
import { tableMigrations } from "../support/target.ts";

let release: Release;
beforeAll(async () => {
  release = (await makeRelease(tableMigrations(6))).release;
});

function plan(length: number, goal: Goal, unfinished: HistoryEntry | null = null, of = release): Plan {
  return makePlan(of, { position: positionAt(of, length), unfinished, repeatables: {} }, goal);
}

function shown(made: Plan): readonly string[] {
  return made.steps.map(({ direction, migration }) => `${direction} ${migration.version}`);
}

function code(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    return Reflect.get(error as object, "code");
  }
}

describe("a plan", () => {
  test("goes up in order and down in reverse, and never beyond either end", () => {
    expect(shown(plan(4, { kind: "latest" }))).toEqual(["up 5", "up 6"]);
    expect(shown(plan(2, { kind: "steps", direction: "up", count: 2 }))).toEqual(["up 3", "up 4"]);
    expect(shown(plan(5, { kind: "steps", direction: "up", count: 99 }))).toEqual(["up 6"]);
    expect(shown(plan(3, { kind: "steps", direction: "down", count: 2 }))).toEqual(["down 3", "down 2"]);
    expect(shown(plan(1, { kind: "steps", direction: "down", count: 99 }))).toEqual(["down 1"]);
    expect(shown(plan(2, { kind: "version", version: "4", allow: "both" }))).toEqual(["up 3", "up 4"]);
    expect(shown(plan(2, { kind: "version", version: "0", allow: "down" }))).toEqual(["down 2", "down 1"]);
    expect(shown(plan(2, { kind: "version", version: "00", allow: "both" }))).toEqual(["down 2", "down 1"]);
    expect(shown(plan(3, { kind: "redo" }))).toEqual(["down 3", "up 3"]);
    expect(shown(plan(6, { kind: "latest" }))).toEqual([]);
  });

  test("ends where its steps lead, whatever the start and the goal", () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 0, max: 6 }), (from, to) => {
        const made = plan(from, { kind: "version", version: String(to), allow: "both" });
        expect(made.from).toEqual(positionAt(release, from));
        expect(made.to).toEqual(positionAt(release, to));
        expect(made.steps).toHaveLength(Math.abs(to - from));
        expect(new Set(made.steps.map(({ direction }) => direction)).size).toBeLessThanOrEqual(1);
      }),
    );
  });

  test("has one digest for one start and one list of bytes, and another for any other", () => {
    const digests = new Map<string, string>();
    for (let from = 0; from <= 6; from += 1) {
      for (let to = 0; to <= 6; to += 1) {
        const { digest } = plan(from, { kind: "version", version: String(to), allow: "both" });
        expect(digests.has(digest)).toBe(false);
        digests.set(digest, `${from} ${to}`);
        expect(plan(from, { kind: "version", version: `0${to}`, allow: "both" }).digest).toBe(digest);
      }
    }
    expect(planDigest("another", positionAt(release, 0), [])).not.toBe(
      planDigest("orders", positionAt(release, 0), []),
    );
  });

  test("refuses what is not there, the other direction, and a step without its down file", async () => {
    expect(code(() => plan(2, { kind: "version", version: "7", allow: "both" }))).toBe("UNKNOWN_VERSION");
    expect(code(() => plan(0, { kind: "redo" }))).toBe("UNKNOWN_VERSION");
    expect(code(() => plan(4, { kind: "version", version: "3", allow: "up" }))).toBe("WRONG_DIRECTION");
    expect(code(() => plan(2, { kind: "version", version: "3", allow: "down" }))).toBe("WRONG_DIRECTION");
    const [first, second] = tableMigrations(2);
    if (first === undefined || second === undefined) throw new TypeError("two were made");
    const oneWay = (await makeRelease([{ path: first.path, up: first.up }, second])).release;
    expect(code(() => plan(2, { kind: "steps", direction: "down", count: 2 }, null, oneWay))).toBe("NO_DOWN");
    expect(shown(plan(2, { kind: "steps", direction: "down", count: 1 }, null, oneWay))).toEqual(["down 2"]);
  });

  test("goes on in the middle of a half-done migration, and lets no other step come before it", () => {
    const half = { ...entry(3), status: "failed", statementsDone: 2, statements: 4 } as const;
    expect(plan(2, { kind: "latest" }, half).steps[0]).toMatchObject({ direction: "up", resumeAt: 2 });
    expect(plan(2, { kind: "latest" }, half).steps[1]?.resumeAt).toBe(0);
    expect(code(() => plan(2, { kind: "steps", direction: "down", count: 1 }, half))).toBe("NEEDS_ATTENTION");
    const halfDown = { ...half, direction: "down" } as const;
    expect(code(() => plan(3, { kind: "latest" }, halfDown))).toBe("NEEDS_ATTENTION");
    expect(plan(3, { kind: "steps", direction: "down", count: 1 }, halfDown).steps[0]).toMatchObject({
      direction: "down",
      resumeAt: 2,
    });
    const nothingDone = { ...half, statementsDone: 0 };
    expect(shown(plan(2, { kind: "steps", direction: "down", count: 1 }, nothingDone))).toEqual(["down 2"]);
  });
});

describe("an approved plan that is not the plan of now", () => {
  const latest: Goal = { kind: "latest" };

  test("was done meanwhile, was begun meanwhile, or has grown", async () => {
    const approved = plan(2, latest).digest;
    expect(explainPlanChange(approved, release, plan(6, latest))).toEqual({ kind: "done" });
    expect(explainPlanChange(approved, release, plan(4, latest))).toMatchObject({
      kind: "changed",
      error: {
        code: "PLAN_CHANGED",
        message: expect.stringContaining("2 of its migrations were applied since") as string,
      },
    });
    const grown = (await makeRelease(tableMigrations(8))).release;
    expect(explainPlanChange(approved, grown, plan(2, latest, null, grown))).toMatchObject({
      error: { message: expect.stringContaining('"7_t7.up.sql", "8_t8.up.sql"') as string },
    });
    expect(explainPlanChange("sha256:other", release, plan(2, latest))).toMatchObject({
      kind: "changed",
      error: { fields: { expected: "sha256:other" } },
    });
  });
});

describe("what is applied", () => {
  test("is the beginning of the release, or the first difference is named", async () => {
    const applied = [1, 2, 3].map((seq) => entry(seq));
    expect(continues(release, positionAt(release, 3))).toBe(true);
    expect(continues(release, positionAt(release, 0))).toBe(true);
    const other = (await makeRelease(tableMigrations(6).with(1, { path: "2_t2.up.sql", up: "SELECT 2" })))
      .release;
    expect(continues(other, positionAt(release, 3))).toBe(false);
    expect(rewritten(other, applied)).toMatchObject({
      code: "HISTORY_REWRITTEN",
      fields: { migration: "2_t2.up.sql", version: "2" },
    });
    const shorter = (await makeRelease(tableMigrations(2))).release;
    expect(continues(shorter, positionAt(release, 3))).toBe(false);
    expect(rewritten(shorter, applied)).toMatchObject({ fields: { migration: "3_t3.up.sql" } });
  });
});

function entry(seq: number): HistoryEntry {
  const migration = release.migrations[seq - 1];
  if (migration === undefined) throw new TypeError(`there is no migration ${seq}`);
  const { version, path, sha256, size, chain } = migration;
  return {
    id: seq,
    seq,
    version,
    path,
    direction: "up",
    sha256,
    size,
    chain,
    origin: "run",
    status: "done",
    statementsDone: 1,
    statements: 1,
    statementChecksums: [],
    signed: false,
    runId: "t.1",
    token: 1,
    startedAt: new Date(0),
    durationMs: 1,
    appliedBy: "tester",
    checkpoint: null,
    note: null,
    error: null,
  };
}
