import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import {
  detectResources,
  type Resource,
  resourceAttributesEnvDetector,
  resourceFromAttributes,
  serviceNameEnvDetector,
} from "@opentelemetry/resources";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type Sampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";

import type { LogRecord } from "../report/log.ts";
import type { ObservedRun, RunObserver, RunWatch } from "../run/observer.ts";
import type { Target } from "../run/target.ts";
import { parseTraceParent } from "../run/trace-parent.ts";
import { countLines } from "./log-series.ts";
import { OtlpSeries } from "./otlp-series.ts";
import { countRuns } from "./run-series.ts";
import { RunTracer } from "./run-spans.ts";
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
  warnOfProtocol(variables, log);
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
  const tracer =
    traces && new RunTracer(traces.getTracer("lockkeeper", version), parentOf(variables, isOneRun));
  const measured = metrics && new OtlpSeries(metrics.getMeter("lockkeeper", version));
  const counted = measured && countRuns(measured);
  const hear = measured && countLines(measured);
  const observers = [tracer, counted].filter((observer) => observer !== undefined);
  return {
    begin: (run) => all(observers, run),
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

function all(observers: readonly RunObserver[], run: ObservedRun): RunWatch {
  const watches = observers.map((observer) => observer.begin(run));
  return {
    event: (event) => watches.forEach((watch) => watch.event(event)),
    ended: (result) => watches.forEach((watch) => watch.ended(result)),
  };
}

type Signal = "TRACES" | "METRICS";
type Variables = OtlpSettings["variables"];

/** By https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/: an end point is there, and nobody says `none`. */
function isWanted(signal: Signal, variables: Variables): boolean {
  const exporter = variables[`OTEL_${signal}_EXPORTER`] ?? "";
  const endpoint =
    variables[`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`] || variables["OTEL_EXPORTER_OTLP_ENDPOINT"] || "";
  return endpoint !== "" && (exporter === "" || exporter.split(",").includes("otlp"));
}

function warnOfProtocol(variables: Variables, log: OtlpSettings["log"]): void {
  const protocol = variables["OTEL_EXPORTER_OTLP_PROTOCOL"] ?? "";
  if (protocol !== "grpc") return;
  const message =
    "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, which lockkeeper does not speak: it sends OTLP over HTTP, for which collectors listen on port 4318";
  log({ level: "warn", event: "telemetry.protocol", fields: { message } });
}

/** What this process is; what the standard's variables say of it comes first. */
function resourceOf(variables: Variables, version: string): Resource {
  const name = variables["AWS_LAMBDA_FUNCTION_NAME"] ?? variables["K_SERVICE"] ?? variables["CLOUD_RUN_JOB"];
  return resourceFromAttributes({
    "service.name": "lockkeeper",
    "service.version": version,
    // two processes must not go on counting each other's runs
    "service.instance.id": randomUUID(),
    "host.name": hostname(),
    ...(name === undefined ? {} : { "faas.name": name }),
  }).merge(detectResources({ detectors: [resourceAttributesEnvDetector, serviceNameEnvDetector] }));
}

const samplers = new Map<string, (ratio: number) => Sampler>([
  ["always_on", () => new AlwaysOnSampler()],
  ["always_off", () => new AlwaysOffSampler()],
  ["traceidratio", (ratio) => new TraceIdRatioBasedSampler(ratio)],
  ["parentbased_always_on", () => new ParentBasedSampler({ root: new AlwaysOnSampler() })],
  ["parentbased_always_off", () => new ParentBasedSampler({ root: new AlwaysOffSampler() })],
  [
    "parentbased_traceidratio",
    (ratio) => new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) }),
  ],
]);

/** What is not known is as if nothing were said, as the standard wants it. */
function samplerOf(variables: Variables): Sampler {
  const ratio = Number(variables["OTEL_TRACES_SAMPLER_ARG"] || 1);
  const isRatio = ratio >= 0 && ratio <= 1;
  const named = samplers.get(variables["OTEL_TRACES_SAMPLER"] ?? "");
  return named?.(isRatio ? ratio : 1) ?? new ParentBasedSampler({ root: new AlwaysOnSampler() });
}

/** Milliseconds: a timer that is told more goes off at once. */
const longestMs = 2 ** 31 - 1;

/** What is no time is as if nothing were said. */
function timeOf(text: string | undefined): number | undefined {
  const ms = Number(text);
  return ms > 0 && ms <= longestMs ? ms : undefined;
}

function parentOf(variables: Variables, isOneRun: boolean) {
  return isOneRun ? parseTraceParent(variables["TRACEPARENT"]) : undefined;
}

/** milliseconds in which one loss is told: a collector that is away is away for each export */
const quietMs = 5 * 60_000;

function lossesTo(log: OtlpSettings["log"]): (what: string) => (error: Error | undefined) => void {
  return (what) => {
    let toldAt = -Infinity;
    return (error) => {
      if (performance.now() - toldAt < quietMs) return;
      toldAt = performance.now();
      const message = `${what} were not taken by the OpenTelemetry collector: ${reasonOf(error)}`;
      log({ level: "warn", event: "telemetry.lost", fields: { message } });
    };
  };
}

/** Not the message: it may hold the receiver's answer, or an address with a token. */
function reasonOf(error: Error | undefined): string {
  const code = error !== undefined && "code" in error ? error.code : undefined;
  if (typeof code === "number") return `HTTP status ${code}`;
  if (typeof code === "string") return code;
  return error?.cause instanceof Error ? reasonOf(error.cause) : "it did not answer in time";
}

interface Exporter<Batch> {
  export(batch: Batch, done: (result: { readonly code: number; readonly error?: Error }) => void): void;
}

/** The same exporter, whose failures are told. */
function telling<Batch, E extends Exporter<Batch>>(
  exporter: E & Exporter<Batch>,
  onLost: (error: Error | undefined) => void,
): E {
  const send: Exporter<Batch>["export"] = exporter.export.bind(exporter);
  exporter.export = (batch, done) =>
    send(batch, (result) => {
      if (result.code !== 0) onLost(result.error);
      done(result);
    });
  return exporter;
}
