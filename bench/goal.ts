import { markdown } from "./table.ts";

/** One number that lockkeeper set out to reach, beside what was measured. */
export interface Goal {
  /** what was measured, as a reader looks for it */
  readonly what: string;
  readonly target: string;
  readonly measured: string;
  /** where it does not, the scene's tables show the limit by a bare measurement */
  readonly isReached: boolean;
}

/** All goals as a table. */
export function goalTable(goals: readonly Goal[]): string {
  return markdown(
    ["what", "to reach", "measured", "reached"],
    goals.map(({ what, target, measured, isReached }) => [
      what,
      target,
      measured,
      isReached ? "yes" : "**no**",
    ]),
  );
}
