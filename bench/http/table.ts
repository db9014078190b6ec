import type { Goal } from "../goal.ts";
import type { Line } from "../result.ts";
import { duration, markdown, median, ratio, spread, times } from "../table.ts";
import type { HttpLoad } from "./result.ts";

const titles: Readonly<Record<HttpLoad["what"], string>> = {
  "get-and-query": "by hand: one GET, then one query",
  "get-query-commit": "by hand: one GET, one query, one commit",
  noop: "lockkeeper: a run that finds nothing to do",
  status: "lockkeeper: status",
};

/** Times as long as by hand that a no-op may take. */
const mostTimes = 2;

/** Its sections. */
export function httpTables(lines: readonly Line[]): string {
  const site = lines.find((line) => line.kind === "http-site");
  const loads = lines.filter((line) => line.kind === "http-load");
  const wires = lines.filter((line) => line.kind === "http-wire");
  const clients = [...new Set(loads.map((line) => line.clients))];
  const table = (value: (load: HttpLoad) => number, show: (value: number) => string): string =>
    markdown(
      ["", ...clients.map((count) => (count === 1 ? "1 client" : `${count} clients`))],
      kinds(loads).map((what) => [
        titles[what],
        ...clients.map((count) => spread(of(loads, what, count).map(value), show)),
      ]),
    );
  return [
    `One warm server with ${site?.targets} targets, each with ${site?.migrations.toLocaleString("en")} migrations applied, on ${site?.servers}. ` +
      "A run is one `POST /v1/runs` which waits for its end, with a token of its own; it is recorded, with who asked and what came of it, " +
      "in a transaction that waits for the disk. By hand is a process of its own without lockkeeper, with connections that are kept. " +
      "Clients of a round take turns with those by hand.",
    "### How long an answer takes",
    "Half of the requests take at most this long.",
    table(({ p50Ms }) => p50Ms, duration),
    "99 of 100 requests take at most this long.",
    table(({ p99Ms }) => p99Ms, duration),
    "### Requests a second",
    table(
      ({ perSecond }) => perSecond,
      (value) => value.toFixed(0),
    ),
    "### Processor time a request",
    "Of the server's process, or of the one that does it by hand.",
    table(({ cpuMs }) => cpuMs, duration),
    "### How many times as long as by hand",
    markdown(
      ["half of the requests", ...clients.map((count) => (count === 1 ? "1 client" : `${count} clients`))],
      (["noop", "status"] as const).flatMap((what) =>
        (["get-and-query", "get-query-commit"] as const).map((hand) => [
          `${titles[what]} ÷ ${titles[hand]}`,
          ...clients.map((count) => ratio(p50(of(loads, what, count)), p50(of(loads, hand, count)))),
        ]),
      ),
    ),
    "### On the wire",
    "Of one request to a warm server.",
    markdown(
      ["", "requests to the bucket", "round trips to the database", "bytes, bucket", "bytes, database"],
      wires.map(({ what, bucket, database }) => [
        titles[what],
        ...[bucket.exchanges, database.exchanges, bucket.bytes, database.bytes].map(String),
      ]),
    ),
  ].join("\n\n");
}

/** What is to be reached over HTTP; nothing where it was not measured. */
export function httpGoals(lines: readonly Line[]): readonly Goal[] {
  const loads = lines.filter((line) => line.kind === "http-load");
  return [...new Set(loads.map((line) => line.clients))].map((count) => {
    const [ours, hand, withCommit] = (["noop", "get-and-query", "get-query-commit"] as const).map((what) =>
      median(p50(of(loads, what, count))),
    );
    const factor = (ours ?? NaN) / (hand ?? NaN);
    return {
      what: `no-op over HTTP on a warm server, ${count === 1 ? "1 client" : `${count} clients`}`,
      target: `at most ${mostTimes} times one GET and one query by hand`,
      measured: `${times(factor)} times (${times((ours ?? NaN) / (withCommit ?? NaN))} times with the commit that a record needs)`,
      isReached: factor <= mostTimes,
    };
  });
}

function kinds(loads: readonly HttpLoad[]): readonly HttpLoad["what"][] {
  return [...new Set(loads.map(({ what }) => what))];
}

function of(loads: readonly HttpLoad[], what: HttpLoad["what"], clients: number): readonly HttpLoad[] {
  return loads.filter((load) => load.what === what && load.clients === clients);
}

function p50(loads: readonly HttpLoad[]): readonly number[] {
  return loads.map(({ p50Ms }) => p50Ms);
}
