import { parseJson } from "../audit/read.ts";
import type { RunEvent } from "../executor/event.ts";
import type { AuditEntry } from "../history/audit.ts";

/** One line of the log: flat but for `audit`, and free of tokens, SQL and passwords. */
export interface LogRecord {
  readonly level: "debug" | "info" | "warn" | "error";
  /** `http.request`, `run.event`, `server.started`… */
  readonly event: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** An entry of the audit log as a line of the server's: what `lockkeeper audit verify --expect-log` reads. */
export function auditLine({ seq, sha256, previous, text }: AuditEntry, target: string): LogRecord {
  return {
    level: "info",
    event: "audit",
    fields: { seq, sha256, previous, target, record: parseJson(text) },
  };
}

/** An event as a line of the log. */
export function recordOf(event: RunEvent, run: string, target: string): LogRecord {
  if (event.kind === "audit") return auditLine(event, target);
  const { kind, ...rest } = event;
  const flat = Object.entries(rest).flatMap(
    ([key, value]: [string, unknown]): [string, string | number | boolean | null][] => {
      if (
        value === null ||
        typeof value === "string" ||
        typeof value === "number" ||
        typeof value === "boolean"
      )
        return [[key, value]];
      if (value instanceof Date) return [[key, value.toISOString()]];
      return Array.isArray(value) ? [[key, value.join(" ")]] : [];
    },
  );
  const level =
    kind === "step.failed" ? "error" : kind === "warning" || kind === "step.retried" ? "warn" : "info";
  return { level, event: kind, fields: { ...Object.fromEntries(flat), run, target } };
}
