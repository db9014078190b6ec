import type { Counter, Histogram, Meter, ObservableGauge } from "@opentelemetry/api";

import {
  series,
  type EventSeries,
  type Labels,
  type Recorder,
  type Sample,
  type SeriesName,
} from "./series.ts";

/** Hands what happens on to OpenTelemetry, by names of which a collector makes those of {@link series} again. */
export class OtlpSeries implements Recorder {
  readonly #meter: Meter;
  readonly #instruments = new Map<EventSeries, Counter | Histogram>();

  constructor(meter: Meter) {
    this.#meter = meter;
  }

  record<Name extends EventSeries>(name: Name, labels: Labels<Name>, value: number): void {
    const known = this.#instruments.get(name) ?? this.#create(name);
    this.#instruments.set(name, known);
    if ("record" in known) known.record(value, labels);
    else known.add(value, labels);
  }

  /** Has databases asked at each export. */
  observe(ask: () => Promise<readonly Sample[]>): void {
    const gauges = new Map<SeriesName, ObservableGauge>();
    for (const name of Object.keys(series) as SeriesName[]) {
      if (series[name].kind !== "gauge" || !series[name].labels.some((label) => label === "target")) continue;
      gauges.set(name, this.#meter.createObservableGauge(otlpName(name), optionsOf(name)));
    }
    this.#meter.addBatchObservableCallback(
      async (result) => {
        for (const { name, labels, value } of await ask()) {
          const gauge = gauges.get(name);
          if (gauge !== undefined) result.observe(gauge, value, labels);
        }
      },
      [...gauges.values()],
    );
  }

  #create(name: EventSeries): Counter | Histogram {
    const definition = series[name];
    if (definition.kind === "counter") return this.#meter.createCounter(otlpName(name), optionsOf(name));
    const advice = { explicitBucketBoundaries: [...definition.buckets] };
    return this.#meter.createHistogram(otlpName(name), { ...optionsOf(name), advice });
  }
}

/** `lockkeeper_run_duration_seconds` is `lockkeeper.run.duration` in the unit s. */
function otlpName(name: SeriesName): string {
  return name.replace(/_(total|seconds)$/, "").replaceAll("_", ".");
}

function optionsOf(name: SeriesName): { readonly description: string; readonly unit?: string } {
  const description = series[name].help;
  return name.endsWith("_seconds") ? { description, unit: "s" } : { description };
}
