import { RunnerError } from "../error.ts";

/** Whether something is wrong with what a bucket holds: that it cannot be read is no proof of anything. */
export function isRefusal(error: unknown): error is RunnerError {
  return error instanceof RunnerError && !error.retryable && !error.code.startsWith("SOURCE_");
}
