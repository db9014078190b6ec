import type { LogRecord } from "../report/log.ts";

/** milliseconds in which one loss is told: a collector that is away is away for each export */
const quietMs = 5 * 60_000;

/** For each kind of thing that is sent, who is told that some was not; `log` hears of it once in a while. */
export function lossesTo(
  log: (record: LogRecord) => void,
): (what: string) => (error: Error | undefined) => void {
  return (what) => {
    let toldAt = -Infinity;
    return (error) => {
      if (performance.now() - toldAt < quietMs) return;
      toldAt = performance.now();
      const message = `${what} were not taken by the OpenTelemetry collector: ${reasonOf(error)}`;
      log({ level: "warn", event: "telemetry.lost", fields: { message } });
    };
  };
}

/** Not the message: it may hold the receiver's answer, or an address with a token. */
function reasonOf(error: Error | undefined): string {
  const code = error !== undefined && "code" in error ? error.code : undefined;
  if (typeof code === "number") return `HTTP status ${code}`;
  if (typeof code === "string") return code;
  return error?.cause instanceof Error ? reasonOf(error.cause) : "it did not answer in time";
}

interface Exporter<Batch> {
  export(batch: Batch, done: (result: { readonly code: number; readonly error?: Error }) => void): void;
}

/** The same exporter, whose failures are told. */
export function telling<Batch, E extends Exporter<Batch>>(
  exporter: E & Exporter<Batch>,
  onLost: (error: Error | undefined) => void,
): E {
  const send: Exporter<Batch>["export"] = exporter.export.bind(exporter);
  exporter.export = (batch, done) =>
    send(batch, (result) => {
      if (result.code !== 0) onLost(result.error);
      done(result);
    });
  return exporter;
}
