import { parseJson } from "../audit/read.ts";
import { traits } from "../error.ts";
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

/** An event as a line of the log: what it is about has the same name in every line, and nothing is nested. */
export function recordOf(event: RunEvent, run: string, target: string): LogRecord {
  if (event.kind === "audit") return auditLine(event, target);
  const fields = Object.entries(event).flatMap(([name, value]: [string, unknown]): [string, unknown][] => {
    const flat = flatOf(value);
    return flat === undefined || hidden.has(name) ? [] : [[nameOf(name, event.kind), flat]];
  });
  return {
    level: levelOf(event),
    event: event.kind,
    fields: { ...Object.fromEntries<unknown>(fields), ...failureOf(event), run, target },
  };
}

/** said by `event` and `run` already */
const hidden: ReadonlySet<string> = new Set(["kind", "runId"]);

/** Of a line, `path` is that of a request, and a digest could be anything's. */
function nameOf(name: string, kind: RunEvent["kind"]): string {
  if (name === "path") return "migration";
  if (name !== "digest") return name;
  return kind === "plan.made" ? "plan" : "release";
}

function flatOf(value: unknown): string | number | boolean | null | undefined {
  if (value === null) return null;
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") return value;
  if (value instanceof Date) return value.toISOString();
  return Array.isArray(value) ? value.join(" ") : undefined;
}

function failureOf(event: RunEvent): LogRecord["fields"] {
  if (event.kind === "step.failed") {
    const { code, fields } = event;
    return { code, sqlstate: fields["sqlstate"] ?? null, retryable: traits[code].retry };
  }
  return event.kind === "run.done" && event.error !== null ? event.error : {};
}

function levelOf(event: RunEvent): LogRecord["level"] {
  switch (event.kind) {
    case "step.failed":
      return "error";
    case "warning":
    case "step.retried":
      return "warn";
    case "run.done":
      if (event.status !== "failed") return event.status === "canceled" ? "warn" : "info";
      return event.outcome === "refused" ? "warn" : "error";
    default:
      return "info";
  }
}
