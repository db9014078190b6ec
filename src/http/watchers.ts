/** Callers who wait, by who they are: nobody may have all the places to himself. */
export class Watchers {
  readonly #open = new Map<string, number>();
  readonly #limits: { readonly watchers: number; readonly watchersPerCaller: number };

  constructor(limits: { readonly watchers: number; readonly watchersPerCaller: number }) {
    this.#limits = limits;
  }

  /** Whether this caller may wait as well. */
  hasPlaceFor(caller: string): boolean {
    const all = [...this.#open.values()].reduce((sum, count) => sum + count, 0);
    return all < this.#limits.watchers && this.#count(caller) < this.#limits.watchersPerCaller;
  }

  /** Counts one more watcher until the returned function is called, which may happen more than once. */
  enter(caller: string): () => void {
    this.#open.set(caller, this.#count(caller) + 1);
    let isOpen = true;
    return () => {
      if (!isOpen) return;
      isOpen = false;
      const left = this.#count(caller) - 1;
      if (left === 0) this.#open.delete(caller);
      else this.#open.set(caller, left);
    };
  }

  #count(caller: string): number {
    return this.#open.get(caller) ?? 0;
  }
}
