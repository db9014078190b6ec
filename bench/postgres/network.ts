import { openWire, type Traffic, type Wire } from "../../test/support/wire.ts";
import type { PostgresTraffic } from "./result.ts";
import type { Site } from "./site.ts";
import type { Route, Tool } from "./tool.ts";

/** What a round trip takes. */
export interface Delays {
  readonly bucketMs: number;
  readonly databaseMs: number;
}

/** A way from the tools to the servers. */
export interface Network extends AsyncDisposable {
  readonly delays: Delays;
  route(database: string): Route;
  reset(): void;
  /** what went over it since; nothing where no proxy stands between */
  traffic(tool: Tool): Pick<PostgresTraffic, "bucket" | "database"> | undefined;
}

/** No proxy: as fast as the machine is. */
export function directly(site: Site): Network {
  return {
    delays: { bucketMs: 0, databaseMs: 0 },
    route: (database) => route(site, database, site),
    reset: () => undefined,
    traffic: () => undefined,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
}

/** By proxies that add these delays and count; without a delay they only count. */
export async function openNetwork(site: Site, delays: Delays): Promise<Network> {
  const toBucket = { roundTripMs: delays.bucketMs };
  const [postgres, s3, gcs] = await Promise.all([
    openWire(site.postgresPort, "postgres", { roundTripMs: delays.databaseMs }),
    openWire(site.bucketPort, "http", toBucket),
    openWire(site.gcsPort, "http", toBucket),
  ]);
  const wires: readonly Wire[] = [postgres, s3, gcs];
  const ports = { postgresPort: postgres.port, bucketPort: s3.port, gcsPort: gcs.port };
  return {
    delays,
    route: (database) => route(site, database, ports),
    reset: () => wires.forEach((wire) => wire.reset()),
    traffic: ({ source }) => ({
      database: count(postgres.traffic()),
      ...(source === "folder" ? {} : { bucket: count((source === "s3" ? s3 : gcs).traffic()) }),
    }),
    async [Symbol.asyncDispose]() {
      await Promise.all(wires.map((wire) => wire[Symbol.asyncDispose]()));
    },
  };
}

function route(
  site: Site,
  database: string,
  ports: Pick<Site, "postgresPort" | "bucketPort" | "gcsPort">,
): Route {
  return {
    url: site.databaseUrl(database, ports.postgresPort),
    s3Endpoint: `http://127.0.0.1:${ports.bucketPort}`,
    gcsEndpoint: `http://127.0.0.1:${ports.gcsPort}`,
  };
}

function count({ connections, exchanges, bytesUp, bytesDown }: Traffic): PostgresTraffic["database"] {
  return { connections, exchanges, bytesUp, bytesDown };
}
