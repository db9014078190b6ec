/** A server by its own name, where it is reached by another. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** `host` or `host:port` of a PostgreSQL server; undefined for anything else. */
export function parseEndpoint(value: string): Endpoint | undefined {
  const match = /^([A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(?::([1-9]\d{0,4}))?$/.exec(value);
  const port = Number(match?.[2] ?? 5432);
  return match?.[1] === undefined || port > 65_535 ? undefined : { host: match[1], port };
}
