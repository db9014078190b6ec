import type { PostgresRun } from "./result.ts";
import { type ToolName, toolNames } from "./tool.ts";

/** What is measured of a tool: a case at a size over a network. */
export type Situation = Pick<PostgresRun, "case" | "migrations" | "bucketMs" | "databaseMs">;

/** The tools that have runs here, in the order of the tables. */
export function rowsOf(runs: readonly PostgresRun[]): readonly ToolName[] {
  return toolNames.filter((name) => runs.some(({ tool }) => tool === name));
}

/** The numbers of migrations that were measured, from the smallest. */
export function sizes(lines: readonly Situation[]): readonly number[] {
  return [...new Set(lines.map(({ migrations }) => migrations))].toSorted((a, b) => a - b);
}

/** The runs on loopback. */
export function near(runs: readonly PostgresRun[]): readonly PostgresRun[] {
  return runs.filter((run) => !isFar(run));
}

/** Whether a network was put between. */
export function isFar({ bucketMs, databaseMs }: Situation): boolean {
  return bucketMs + databaseMs > 0;
}

/** `10,000` */
export function count(migrations: number): string {
  return migrations.toLocaleString("en");
}

/** Whole MiB. */
export function mib(value: number): string {
  return value.toFixed(0);
}
