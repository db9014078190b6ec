import type { Variables } from "../cli/context.ts";
import type { LogRecord } from "../report/log.ts";
import { logTo } from "../report/log-writer.ts";

/** Log lines on standard output, in the form that the platform reads which the variables say we run on. */
export function openLog(variables: Variables, now: () => Date): (record: LogRecord) => void {
  const isGoogle = [variables["K_SERVICE"], variables["CLOUD_RUN_JOB"]].some((name) => name !== undefined);
  return logTo(
    process.stdout,
    now,
    isGoogle ? { google: { project: variables["GOOGLE_CLOUD_PROJECT"] } } : {},
  );
}
