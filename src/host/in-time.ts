/**
 * What was asked of a client that cannot be told to stop.
 *
 * @throws Error where there is none within `ms`; what comes later is let go of
 */
export async function inTime<T>(asked: Promise<T>, ms: number): Promise<T> {
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`none within ${ms} ms`)), ms);
  try {
    return await Promise.race([asked, late.promise]);
  } finally {
    clearTimeout(timer);
  }
}
