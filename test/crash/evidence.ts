import type { CrashMigration } from "./workload.ts";
import type { Stage } from "./round.ts";

/** One movement that a round is to make. */
export interface Step {
  readonly migration: CrashMigration;
  readonly direction: "up" | "down";
}

/** The movements of a round, in the one order that is right. */
export function stepsOf(stages: readonly Stage[], migrations: readonly CrashMigration[]): readonly Step[] {
  const steps: Step[] = [];
  let at = 0;
  for (const { to } of stages) {
    for (; at < to; at += 1) push("up", at);
    for (; at > to; at -= 1) push("down", at - 1);
  }
  return steps;

  function push(direction: Step["direction"], index: number): void {
    const migration = migrations[index];
    if (migration !== undefined) steps.push({ migration, direction });
  }
}

/** What is wrong with the final state of a database, or with how it came about. */
export interface Violation {
  readonly rule: string;
  readonly detail: string;
}

/**
 * Compares the evidence with what the steps should have left, as lists: nothing twice, nothing missing, nothing in
 * another order.
 *
 * Two things are taken out first, because they are right: an index that was dropped before it was whole, and a
 * `REINDEX` repeated at once, which changes nothing.
 */
export function judgeEvidence(marks: readonly string[], steps: readonly Step[]): readonly Violation[] {
  const expected = steps.flatMap(({ migration, direction }) => migration[direction].marks);
  const actual = withoutHarmless(marks, expected);
  const count = (list: readonly string[], mark: string): number =>
    list.filter((other) => other === mark).length;
  const all = [...new Set([...expected, ...actual])];
  const twice = all.filter((mark) => count(actual, mark) > count(expected, mark));
  const missing = all.filter((mark) => count(actual, mark) < count(expected, mark));
  const first = actual.findIndex((mark, index) => mark !== expected[index]);
  const isOtherwiseOrdered = twice.length === 0 && missing.length === 0 && first >= 0;
  return [
    ...violation("exactly once", twice),
    ...violation("nothing missing", missing),
    ...violation(
      "in order",
      isOtherwiseOrdered ? [`"${actual[first]}" where "${expected[first]}" belongs`] : [],
    ),
  ];
}

function violation(rule: string, marks: readonly string[]): readonly Violation[] {
  if (marks.length === 0) return [];
  const rest = marks.length > 5 ? ` and ${marks.length - 5} more` : "";
  return [{ rule, detail: marks.slice(0, 5).join(", ") + rest }];
}

function withoutHarmless(marks: readonly string[], expected: readonly string[]): readonly string[] {
  const there = new Set<string>();
  // Those that the setup made.
  for (const mark of expected)
    if (mark.startsWith("drop index crash.gone_")) there.add(mark.slice("drop index ".length));
  return marks.filter((mark, index) => {
    if (mark.startsWith("reindex ") && marks[index - 1] === mark) return false;
    const created = /^create index (.+)$/.exec(mark)?.[1];
    if (created !== undefined) there.add(created);
    const dropped = /^drop index (.+)$/.exec(mark)?.[1];
    return dropped === undefined || there.delete(dropped);
  });
}
