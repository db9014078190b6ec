import { RunnerError } from "../error.ts";
import type { Target } from "../runner.ts";

/** How many runs of each target are open in this process, or about to be, and how many may be. */
export class OpenRuns {
  readonly #perTarget: number;
  readonly #counts = new Map<string, number>();

  constructor(perTarget: number) {
    this.#perTarget = perTarget;
  }

  /** How many more there may be of a target. */
  left({ name }: Pick<Target, "name">): number {
    return Math.max(0, this.#perTarget - (this.#counts.get(name) ?? 0));
  }

  /** Counts one more until the returned function is called. */
  add({ name }: Pick<Target, "name">): () => void {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    return () => {
      const left = (this.#counts.get(name) ?? 1) - 1;
      if (left === 0) this.#counts.delete(name);
      else this.#counts.set(name, left);
    };
  }

  /**
   * As {@link add}, where there may be one more.
   *
   * @throws RunnerError `RATE_LIMITED`
   */
  addWithin(target: Pick<Target, "name">): () => void {
    if (this.left(target) > 0) return this.add(target);
    const { name } = target;
    const open = this.#counts.get(name) ?? 0;
    throw new RunnerError("RATE_LIMITED", `${open} runs of "${name}" are open in this server already`, {
      hint: "wait for one of them; GET /v1/runs?target=… lists them",
      fields: { retryAfterSeconds: 5 },
    });
  }
}
