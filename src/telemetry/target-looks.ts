import { setTimeout as sleep } from "node:timers/promises";

import type { Target } from "../run/target.ts";
import { lookAtTarget, type Looked } from "./look-at-target.ts";
import type { Sample } from "./series.ts";

/** How often databases are asked, and how patiently; milliseconds. */
export interface LookLimits {
  /** a look this young is shown again */
  readonly freshMs: number;
  /** for one database and its bucket */
  readonly lookMs: number;
  /** for all of them: then what is known is shown, and the rest goes on */
  readonly waitMs: number;
  /** databases asked at once */
  readonly atOnce: number;
}

// Prometheus asks every 15 s to 60 s and waits for 10 s; two replicas of it, or a person beside it, cost no second look
const usualLimits: LookLimits = { freshMs: 5_000, lookMs: 4_000, waitMs: 6_000, atOnce: 8 };

/**
 * What the databases themselves say, whoever changed them: so it is also true where another process did the work, and
 * after a restart. Asked when somebody wants to know, never oftener than every `freshMs`.
 */
export class TargetLooks {
  readonly #targets: readonly Target[];
  readonly #limits: LookLimits;
  readonly #known = new Map<string, { readonly at: number; readonly looked: Looked }>();
  #refresh: Promise<void> | undefined;

  constructor(targets: Iterable<Target>, limits: Partial<LookLimits> = {}) {
    this.#targets = [...targets];
    this.#limits = { ...usualLimits, ...limits };
  }

  /** Never throws: a database that is away is a target that is not up. */
  async samples(): Promise<readonly Sample[]> {
    this.#refresh ??= this.#lookAtAll().finally(() => (this.#refresh = undefined));
    const patience = new AbortController();
    const late = sleep(this.#limits.waitMs, undefined, { signal: patience.signal }).catch(() => undefined);
    await Promise.race([this.#refresh, late]);
    patience.abort();
    return this.#targets.flatMap(({ name }) => {
      const known = this.#known.get(name);
      const isOld = known === undefined || performance.now() - known.at > this.#oldMs();
      return isOld
        ? [{ name: "lockkeeper_target_up", labels: { target: name }, value: 0 }]
        : known.looked.samples;
    });
  }

  /** Where there are so many targets that one round of looks takes long, a value may be that old. */
  #oldMs(): number {
    const { freshMs, lookMs, waitMs, atOnce } = this.#limits;
    return 2 * freshMs + waitMs + lookMs * Math.ceil(this.#targets.length / atOnce);
  }

  async #lookAtAll(): Promise<void> {
    const left = this.#targets.values();
    const work = async (): Promise<void> => {
      for (const target of left) {
        const known = this.#known.get(target.name);
        if (known !== undefined && performance.now() - known.at < this.#limits.freshMs) continue;
        const signal = AbortSignal.timeout(this.#limits.lookMs);
        const looked = await lookAtTarget(target, known?.looked, signal);
        this.#known.set(target.name, { at: performance.now(), looked });
      }
    };
    await Promise.all(Array.from({ length: this.#limits.atOnce }, work));
  }
}
