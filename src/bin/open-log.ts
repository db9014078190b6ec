import type { Variables } from "../cli/context.ts";
import type { LogRecord } from "../report/log.ts";
import { logTo } from "../report/log-writer.ts";

/** Log lines on standard output, in the form that the platform reads which the variables say we run on. */
export function openLog(variables: Variables, now: () => Date): (record: LogRecord) => void {
  const isGoogle = [variables["K_SERVICE"], variables["CLOUD_RUN_JOB"]].some((name) => name !== undefined);
  return logTo(
    written(process.stdout),
    now,
    isGoogle ? { google: { project: variables["GOOGLE_CLOUD_PROJECT"] } } : {},
  );
}

/**
 * Lines that are told in one breath as one write: each would wait for the system by itself, and a run's end has several.
 * They are written before anything that follows from them, such as an answer.
 */
function written(stream: NodeJS.WriteStream): { write(line: string): void } {
  let lines = "";
  const flush = (): void => {
    const text = lines;
    lines = "";
    if (text !== "") stream.write(text);
  };
  return {
    write(line) {
      if (lines === "") queueMicrotask(flush);
      lines += line;
    },
  };
}
