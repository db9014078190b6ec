import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import { BatchSpanProcessor, TracerProvider } from "@opentelemetry/sdk-trace";

import type { LogRecord } from "../report/log.ts";
import { watchAll, type RunObserver } from "../run/observer.ts";
import type { Target } from "../run/target.ts";
import { parseTraceParent } from "../run/trace-parent.ts";
import { countLines } from "./log-series.ts";
import { lossesTo, telling } from "./otlp-losses.ts";
import { OtlpSeries } from "./otlp-series.ts";
import { isWanted, protocolProblem, resourceOf, samplerOf, timeOf } from "./otlp-variables.ts";
import { countRuns } from "./run-series.ts";
import { RunTracer } from "./run-tracer.ts";
import { TargetLooks } from "./target-looks.ts";

/** What the exporter is told, besides by the variables of its own that start with `OTEL_EXPORTER_OTLP_`. */
export interface OtlpSettings {
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** one run, started by a pipeline: the variable `TRACEPARENT` says where it belongs */
  readonly isOneRun: boolean;
  /** what could not be sent, once in a while */
  log(record: LogRecord): void;
}

/** Tells an OpenTelemetry collector of runs, requests and databases. */
export interface Otlp extends RunObserver {
  /** hears the server's log: requests and events are counted by it */
  hear(record: LogRecord): void;
  /** tells of the state of these databases as well, at each export */
  watch(targets: Iterable<Target>): void;
  /** of a run's log lines */
  traceOf(runId: string): Readonly<Record<string, string>>;
  /** Sends what was not sent; never throws. */
  flush(): Promise<void>;
}

/** milliseconds for one export where a process waits for it at its end; on a server the standard's own 10 s hold */
const oneRunMs = 2_000;
/** spans that wait: a run may have thousands of migrations within a second */
const mostSpans = 16_384;

/** Traces and metrics over OTLP, as far as the standard's variables want them. Sent in the background: nothing waits for it. */
export function openOtlp({ variables, version, isOneRun, log }: OtlpSettings): Otlp {
  const message = protocolProblem(variables);
  if (message !== undefined) log({ level: "warn", event: "telemetry.protocol", fields: { message } });
  const resource = resourceOf(variables, version);
  const exporting = isOneRun ? { timeoutMillis: oneRunMs } : {};
  const lost = lossesTo(log);
  const delayMs = timeOf(variables["OTEL_BSP_SCHEDULE_DELAY"]);
  const intervalMs = timeOf(variables["OTEL_METRIC_EXPORT_INTERVAL"]);
  const traces = isWanted("TRACES", variables)
    ? new TracerProvider({
        resource,
        sampler: samplerOf(variables),
        spanProcessors: [
          new BatchSpanProcessor({
            exporter: telling(new OTLPTraceExporter(exporting), lost("traces")),
            maxQueueSize: mostSpans,
            ...(delayMs === undefined ? {} : { scheduledDelayMillis: delayMs }),
            ...(isOneRun ? { exportTimeoutMillis: oneRunMs } : {}),
          }),
        ],
      })
    : undefined;
  const metrics = isWanted("METRICS", variables)
    ? new MeterProvider({
        resource,
        readers: [
          new PeriodicExportingMetricReader({
            exporter: telling(new OTLPMetricExporter(exporting), lost("metrics")),
            ...(intervalMs === undefined ? {} : { exportIntervalMillis: intervalMs }),
          }),
        ],
      })
    : undefined;
  const parent = isOneRun ? parseTraceParent(variables["TRACEPARENT"]) : undefined;
  const tracer = traces && new RunTracer(traces.getTracer("lockkeeper", version), parent);
  const measured = metrics && new OtlpSeries(metrics.getMeter("lockkeeper", version));
  const counted = measured && countRuns(measured);
  const hear = measured && countLines(measured);
  const observers = [tracer, counted].filter((observer) => observer !== undefined);
  return {
    begin: (run) => watchAll(observers, run),
    hear: (record) => hear?.(record),
    watch(targets) {
      const looks = measured && new TargetLooks(targets);
      if (looks !== undefined) measured?.observe(() => looks.samples());
    },
    traceOf(runId) {
      const place = tracer?.placeOf(runId);
      return place === undefined ? {} : { trace_id: place.traceId, span_id: place.spanId };
    },
    async flush() {
      await Promise.allSettled([traces?.forceFlush(), metrics?.forceFlush()]);
    },
  };
}
