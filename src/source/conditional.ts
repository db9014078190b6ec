import { RunnerError } from "../error.ts";
import { type Patience, withRetries } from "./retry.ts";
import type { StoredObject, WritableSource } from "./source.ts";

type Written = Awaited<ReturnType<WritableSource["write"]>>;

/**
 * A conditional write with retries, which knows its own work: when the answer to one try was lost and the next one
 * meets a conflict, what is in the way may be what the first one wrote. Then the object is read and compared.
 *
 * @param put - one try
 * @param readBack - the object as it is now
 */
export async function writeConditionally(
  bytes: Uint8Array,
  patience: Patience,
  signal: AbortSignal,
  put: () => Promise<Written>,
  readBack: () => Promise<StoredObject | "unchanged" | undefined>,
): Promise<Written> {
  let isUnsure = false;
  const written = await withRetries(patience, signal, async () => {
    try {
      return await put();
    } catch (error) {
      isUnsure = true;
      throw error;
    }
  });
  if (written !== "conflict" || !isUnsure) return written;
  const stored = await readBack().catch((error: unknown) => {
    // Larger than what we wrote: not ours.
    if (error instanceof RunnerError && error.code === "TOO_LARGE") return undefined;
    throw error;
  });
  const isOurs = stored !== undefined && stored !== "unchanged" && stored.bytes.equals(bytes);
  return isOurs ? { version: stored.version } : "conflict";
}

/** The error of a pinned read whose object has another state by now. */
export function changed(source: string, key: string): RunnerError {
  return new RunnerError(
    "SOURCE_CHANGED",
    `${source}: "${key}" was replaced or removed while it was being read`,
    {
      hint: "run again",
      fields: { source, key },
    },
  );
}
