import { createServer } from "node:http";
import { expositionType } from "../telemetry/exposition.ts";
import { countLines } from "../telemetry/log-series.ts";
import { processSamples } from "../telemetry/process-series.ts";
import { Registry } from "../telemetry/registry.ts";
import { countRuns } from "../telemetry/run-series.ts";
import { TargetLooks } from "../telemetry/target-looks.ts";
import type { LogRecord } from "../report/log.ts";
import type { RunObserver } from "../run/observer.ts";
import type { Target } from "../runner.ts";
import { opened } from "./listen.ts";

/** What a server counts for Prometheus. */
export interface Metrics {
  /** to be on each target */
  readonly observer: RunObserver;
  /** hears the server's log */
  hear(record: LogRecord): void;
  /**
   * Answers `GET /metrics` on an address of its own, because the text names every target, and no caller of the API has to
   * be let in by it; until the signal aborts.
   *
   * @returns its URL
   * @throws RunnerError `CONFIG` - the address cannot be listened on
   */
  serve(
    targets: Iterable<Target>,
    at: { readonly host: string; readonly port: number },
    signal: AbortSignal,
  ): Promise<string>;
}

/** milliseconds of patience with whoever connects and says nothing */
const patience = { headersTimeout: 5_000, requestTimeout: 10_000, connectionsCheckingInterval: 2_000 };
/** Prometheus has two servers at the most that ask, and a person beside them */
const maxConnections = 32;

/** Counters that begin at nothing. */
export function createMetrics(version: string): Metrics {
  const registry = new Registry();
  return {
    observer: countRuns(registry),
    hear: countLines(registry),
    async serve(targets, at, signal) {
      const looks = new TargetLooks(targets);
      const server = createServer(patience, (request, response) => {
        const isAsked = request.url?.split("?")[0] === "/metrics";
        if (!isAsked || (request.method !== "GET" && request.method !== "HEAD")) {
          response.writeHead(isAsked ? 405 : 404, { "content-type": "text/plain" });
          response.end(isAsked ? "" : "GET /metrics\n");
          return;
        }
        void looks.samples().then((samples) => {
          response.writeHead(200, { "content-type": expositionType, "cache-control": "no-store" });
          response.end(registry.expose([...processSamples(version), ...samples]));
        });
      });
      server.maxConnections = maxConnections;
      const url = await opened(server, at);
      const stop = (): void => {
        server.close();
        server.closeAllConnections();
      };
      if (signal.aborted) stop();
      else signal.addEventListener("abort", stop, { once: true });
      return `${url}/metrics`;
    },
  };
}
