import type { LogRecord } from "./log.ts";
import { redactText } from "./redact.ts";

/** What log lines say besides their records. */
export interface LogOptions {
  /** asked for each line: Lambda's `aws_request_id` */
  besides?(): Readonly<Record<string, unknown>>;
  /** Lines are for Google Cloud's logging, which reads some fields by names of its own; `project` leads it to their traces. */
  readonly google?: { readonly project: string | undefined };
}

/** Writes log records as JSON lines: time and level first, then what happened. Without passwords. */
export function logTo(
  stream: { write(line: string): unknown },
  now: () => Date,
  options: LogOptions = {},
): (record: LogRecord) => void {
  return (record) => {
    const { level, event, fields } = record;
    if (level === "debug") return;
    const line = { time: now().toISOString(), level, event, ...fields, ...options.besides?.() };
    const written = options.google === undefined ? line : forGoogle(line, record, options.google.project);
    stream.write(`${JSON.stringify(written, clean)}\n`);
  };
}

const severities = { debug: "DEBUG", info: "INFO", warn: "WARNING", error: "ERROR" } as const;

/** https://docs.cloud.google.com/logging/docs/structured-logging#structured_logging_special_fields */
function forGoogle(
  line: Readonly<Record<string, unknown>>,
  { level, event, fields }: LogRecord,
  project: string | undefined,
): object {
  const { trace_id: trace, span_id: span } = line;
  return {
    severity: severities[level],
    // what a list of lines shows of each
    message:
      fields["message"] ??
      [event, fields["target"], fields["migration"], fields["code"]].filter(Boolean).join(" "),
    ...line,
    ...(typeof trace === "string" && project !== undefined
      ? { "logging.googleapis.com/trace": `projects/${project}/traces/${trace}` }
      : {}),
    ...(typeof span === "string" ? { "logging.googleapis.com/spanId": span } : {}),
  };
}

function clean(_: string, value: unknown): unknown {
  return typeof value === "string" ? redactText(value) : value;
}
