import { version } from "../build.ts";
import type { Variables } from "../cli/context.ts";
import { RunnerError } from "../error.ts";
import { httpLimits } from "../http/limits.ts";
import type { LogRecord } from "../report/log.ts";
import type { RunObserver } from "../run/observer.ts";
import type { Target } from "../runner.ts";
import { loadConfig, type Config } from "./config.ts";
import type { TargetSettings } from "./settings.ts";
import { parseListen } from "./config-schema.ts";
import { listen } from "./listen.ts";
import { lastFlushMs, openObservers } from "./open-observers.ts";
import { openCallers } from "./open-callers.ts";
import { openHandOver } from "./open-hand-over.ts";
import { openLog } from "./open-log.ts";
import type { Metrics } from "./serve-metrics.ts";

/**
 * `lockkeeper serve`: the HTTP API for the targets of a configuration file, until the signal aborts and the last run has ended.
 * Log lines, one JSON document each, go to standard output.
 *
 * @throws RunnerError `CONFIG` — what of configuration, policy, keys or address cannot be used, before anything listens
 */
export async function serve(
  choice: { readonly config: string; readonly listen: string | undefined },
  open: (settings: TargetSettings, config: Config, observers: readonly RunObserver[]) => Promise<Target>,
  variables: Variables,
  signal: AbortSignal,
  onListening: (url: string) => void,
): Promise<void> {
  const config = await loadConfig(choice.config);
  const at = addressOf(choice.listen, config, variables);
  const now = (): Date => new Date();
  const write = openLog(variables, now);
  const callers = await openCallers(config, { log: write, now });
  const observers = await openObservers({ variables, config: async () => config, log: write });
  const metrics = await metricsOf(config);
  const log = (record: LogRecord): void => {
    metrics?.hear(record);
    observers.log(record);
  };
  const watching = [...observers.observers, ...(metrics === undefined ? [] : [metrics.observer])];
  const targets = new Map<string, Target>();
  try {
    for (const [name, settings] of config.targets) targets.set(name, await open(settings, config, watching));
    observers.watch(targets.values());
    const metricsUrl =
      config.metrics === undefined
        ? undefined
        : await metrics?.serve(targets.values(), config.metrics, signal);
    const handOver = await openHandOver(config.work);
    if (handOver === undefined && variables["K_SERVICE"] !== undefined) log(mayFreeze);
    const server = await listen(
      {
        targets,
        ...callers,
        publicUrl: publicUrlOf(config, at),
        limits: httpLimits,
        version: version(),
        signal,
        ...(handOver === undefined ? {} : { handOver }),
        log,
        now,
      },
      at,
    );
    log({
      level: "info",
      event: "server.started",
      fields: {
        url: server.url,
        ...(metricsUrl === undefined ? {} : { metrics: metricsUrl }),
        targets: [...targets.keys()].join(" "),
        version: version(),
      },
    });
    onListening(server.url);
    await server.stopped;
    log({ level: "info", event: "server.stopped", fields: {} });
  } finally {
    await Promise.allSettled([
      ...[...targets.values()].map((target) => target.driver.close()),
      observers.flush(lastFlushMs),
    ]);
  }
}

/** Nothing is counted for nobody. */
async function metricsOf({ metrics }: Config): Promise<Metrics | undefined> {
  if (metrics === undefined) return undefined;
  const { createMetrics } = await import("./serve-metrics.ts");
  return createMetrics(version());
}

/** Cloud Run takes the processor away with the answer, unless it is told not to; nothing in the container says which. */
const mayFreeze: LogRecord = {
  level: "warn",
  event: "server.may-freeze",
  fields: {
    message:
      "runs go on in this service after their answer: it needs a processor that is always allocated, or work.cloudRunJob in the configuration",
  },
};

const defaultAddress = { host: "127.0.0.1", port: 8080 };

/** Where nothing else says it, as Cloud Run does: a port in `PORT`, on every interface of the container. */
function addressOf(
  flag: string | undefined,
  { listen: configured }: Config,
  { PORT: port = "" }: Variables,
): { readonly host: string; readonly port: number } {
  if (flag === undefined) return configured ?? (port === "" ? defaultAddress : parsePort(port));
  const at = parseListen(flag);
  if (at === undefined)
    throw new RunnerError("USAGE", `--listen: "${flag}" is not host:port`, {
      hint: "for instance 127.0.0.1:8080",
    });
  return at;
}

function parsePort(text: string): { readonly host: string; readonly port: number } {
  const at = /^\d+$/.test(text) ? parseListen(`:${text}`) : undefined;
  if (at !== undefined) return at;
  throw new RunnerError("CONFIG", "the variable PORT is no port to listen on", {
    hint: "say where to listen with --listen, for instance 127.0.0.1:8080",
  });
}

/** Only a server that nobody else can reach may do without: everywhere else its own idea of its address is a guess. */
function publicUrlOf(config: Config, { host }: { readonly host: string }): string | undefined {
  if (config.publicUrl !== undefined || host === "127.0.0.1" || host === "::1" || host === "localhost")
    return config.publicUrl;
  throw new RunnerError("CONFIG", `${config.file}: publicUrl is missing`, {
    hint: "say where callers reach the server, for instance publicUrl: https://migrate.example",
  });
}
