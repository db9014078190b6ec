import type { Tracer } from "@opentelemetry/api";

import type { ObservedRun, RunObserver, RunWatch } from "../run/observer.ts";
import { parseTraceParent, type TraceParent } from "../run/trace-parent.ts";
import { RunSpans } from "./run-spans.ts";

/** runs whose place in a trace is remembered */
const mostPlaces = 1_000;

/** Makes spans of runs, and knows which span a run's log lines belong to. */
export class RunTracer implements RunObserver {
  readonly #tracer: Tracer;
  readonly #parent: TraceParent | undefined;
  /** of the runs begun last, also ended ones: lines may come late */
  readonly #places = new Map<string, TraceParent>();

  /** @param parent - of runs that nobody names one for, such as the pipeline that started this process */
  constructor(tracer: Tracer, parent: TraceParent | undefined) {
    this.#tracer = tracer;
    this.#parent = parent;
  }

  begin(run: ObservedRun): RunWatch {
    const watch = new RunSpans(run, this.#tracer, parseTraceParent(run.traceparent) ?? this.#parent);
    this.#places.set(run.id, watch.place);
    const [oldest] = this.#places.keys();
    if (this.#places.size > mostPlaces && oldest !== undefined) this.#places.delete(oldest);
    return watch;
  }

  /** Where in which trace a run is. */
  placeOf(runId: string): TraceParent | undefined {
    return this.#places.get(runId);
  }
}
