import { setTimeout as sleep } from "node:timers/promises";
import type { Observers, ObserverSettings, OpenObserver } from "./observers.ts";

/** milliseconds for what was not sent when a process ends */
export const lastFlushMs = 5_000;

/** Each says undefined where nothing asks for it, before it loads anything. */
const openers: readonly ((settings: ObserverSettings) => Promise<OpenObserver | undefined>)[] = [
  telemetry,
  notifier,
];

/**
 * All observers that variables and configuration ask for.
 *
 * @throws RunnerError `CONFIG` - what they ask for cannot be made
 */
export async function openObservers(settings: ObserverSettings): Promise<Observers> {
  const opened = await Promise.all(openers.map((open) => open(settings)));
  const observers = opened.filter((observer) => observer !== undefined);
  return {
    observers,
    async flush(ms) {
      const patience = new AbortController();
      await Promise.race([
        Promise.allSettled(observers.map((observer) => observer.flush(ms))),
        sleep(ms, undefined, { signal: patience.signal }).catch(() => undefined),
      ]);
      patience.abort();
    },
    log(record) {
      for (const observer of observers) observer.hear?.(record);
      const { run } = record.fields;
      const place = typeof run === "string" ? traceOf(run, observers) : undefined;
      settings.log(place === undefined ? record : { ...record, fields: { ...record.fields, ...place } });
    },
    watch(targets) {
      for (const observer of observers) observer.watch?.(targets);
    },
  };
}

function traceOf(
  runId: string,
  observers: readonly OpenObserver[],
): Readonly<Record<string, string>> | undefined {
  return observers.map((observer) => observer.traceOf?.(runId)).find((fields) => fields !== undefined);
}

async function telemetry({
  variables,
  log,
  isOneRun = false,
}: ObserverSettings): Promise<OpenObserver | undefined> {
  const asks = endpoints.some((name) => (variables[name] ?? "") !== "");
  if (!asks || variables["OTEL_SDK_DISABLED"]?.toLowerCase() === "true") return undefined;
  const [{ openOtlp }, { version }] = await Promise.all([
    import("../telemetry/otlp.ts"),
    import("../build.ts"),
  ]);
  return openOtlp({ variables, version: version(), isOneRun, log });
}

/** Where OpenTelemetry's collector is: without one of them nothing is sent. */
const endpoints = [
  "OTEL_EXPORTER_OTLP_ENDPOINT",
  "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
  "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
] as const;

async function notifier(settings: ObserverSettings): Promise<OpenObserver | undefined> {
  const config = await settings.config();
  if (config === undefined || config.notify.length === 0) return undefined;
  const { openNotifier } = await import("./open-notifier.ts");
  return openNotifier(config, settings);
}
