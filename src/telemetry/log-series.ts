import type { LogRecord } from "../report/log.ts";
import type { Recorder } from "./series.ts";

/**
 * Counts what a process says besides its runs: requests and events. The log is its one voice for both, so that whoever
 * answers them need not know who counts.
 */
export function countLines(recorder: Recorder): (record: LogRecord) => void {
  return ({ event, fields }) => {
    if (event === "http.request") countRequest(fields, recorder);
    if (event === "event.received") {
      recorder.record(
        "lockkeeper_events_total",
        { provider: word(fields["provider"]) ?? "none", result: word(fields["result"]) ?? "unknown" },
        1,
      );
    }
  };
}

function countRequest(fields: LogRecord["fields"], recorder: Recorder): void {
  const method = word(fields["method"]);
  const status = String(fields["status"]);
  // what has no route was made up by its sender
  const route = word(fields["route"]) ?? "none";
  const known = { method: method !== undefined && methods.has(method) ? method : "other", route };
  recorder.record("lockkeeper_http_requests_total", { ...known, status }, 1);
  const { durationMs } = fields;
  if (typeof durationMs === "number")
    recorder.record("lockkeeper_http_request_duration_seconds", known, durationMs / 1000);
}

const methods: ReadonlySet<string> = new Set(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]);

function word(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}
