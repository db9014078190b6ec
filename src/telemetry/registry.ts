import { exposed, type Count } from "./exposition.ts";
import { series, type EventSeries, type Labels, type Recorder, type Sample } from "./series.ts";

/** Counts what happens in this process, and says it all in Prometheus' text form. */
export class Registry implements Recorder {
  /** by name of the series, then by the values of its labels as JSON */
  readonly #counts = new Map<EventSeries, Map<string, Count>>();

  record<Name extends EventSeries>(name: Name, labels: Labels<Name>, value: number): void {
    const counts = this.#counts.get(name) ?? new Map<string, Count>();
    this.#counts.set(name, counts);
    const definition = series[name];
    const values: Readonly<Record<string, string>> = labels;
    const key = JSON.stringify(definition.labels.map((label) => values[label]));
    const bounds = definition.kind === "histogram" ? definition.buckets : [];
    const count = counts.get(key) ?? { labels: values, sum: 0, count: 0, buckets: bounds.map(() => 0) };
    counts.set(key, count);
    count.sum += value;
    count.count += 1;
    for (const [index, bound] of bounds.entries())
      if (value <= bound) count.buckets[index] = (count.buckets[index] ?? 0) + 1;
  }

  /** @param samples - what is not counted here but asked: databases, the process */
  expose(samples: readonly Sample[]): string {
    return exposed(this.#counts, samples);
  }
}
