import type { ErrorFields } from "../error.ts";

/** One line of the log: flat, and free of tokens, SQL and passwords. */
export interface LogRecord {
  readonly level: "debug" | "info" | "warn" | "error";
  /** `http.request`, `run.event`, `server.started`… */
  readonly event: string;
  readonly fields: ErrorFields;
}
