import type { AuditedMigration } from "../audit/record.ts";
import type { StepResult } from "../executor/result.ts";
import type { HistoryEntry } from "../history/entry.ts";
import type { Direction } from "../migration/migration.ts";
import type { Step } from "../plan/plan.ts";

/** A step that was done, with what its record needs besides its result. */
export interface DoneStep extends StepResult, Pick<AuditedMigration, "seq" | "sha256"> {}

/** The steps that a run may do, by what they are called while it does them. */
export class KnownSteps {
  readonly #steps = new Map<string, Step>();

  add(steps: readonly Step[]): void {
    for (const step of steps) this.#steps.set(nameOf(step.direction, step.body.path), step);
  }

  done(step: StepResult): DoneStep {
    const known = this.#steps.get(nameOf(step.direction, step.path));
    return { ...resultOf(step), seq: known?.migration.seq ?? 0, sha256: known?.body.sha256 ?? "" };
  }
}

/** The steps that the history of a run says were done; not what a person declared. */
export function doneIn(entries: readonly HistoryEntry[]): readonly DoneStep[] {
  return entries
    .filter(({ status, origin }) => status === "done" && (origin === "run" || origin === "checkpoint"))
    .map((entry) => ({ ...resultOf(entry), seq: entry.seq, sha256: entry.sha256 }));
}

/** What of a step a run's result tells. */
export function resultOf({ version, path, direction, durationMs }: StepResult): StepResult {
  return { version, path, direction, durationMs };
}

/** What of a step a run's record tells. */
export function auditedStep({ seq, path, direction, sha256, durationMs }: DoneStep): AuditedMigration {
  return { seq, path, direction, sha256, ms: Math.round(durationMs) };
}

function nameOf(direction: Direction, path: string): string {
  return `${direction} ${path}`;
}
