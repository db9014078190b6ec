import * as v from "valibot";

import { RunnerError } from "../error.ts";
import { formatChainEnd } from "../release/chain.ts";
import { askUntil, lookAt, type AskOptions } from "../status/ask-until.ts";
import type { Wanted } from "../status/await-applied.ts";
import { line } from "./remote-run.ts";
import type { Patience, RemoteServer } from "./remote-server.ts";

const openSchema = v.object({
  position: v.object({ version: v.nullable(line), length: v.number(), chain: v.nullable(line) }),
  completed: v.nullable(line),
});

/** What a server says of a database that has what was asked for. */
export type OpenGate = v.InferOutput<typeof openSchema>;

/** The kubelet replaces a projected token in time, but not always before a clock elsewhere says so. */
const patience: Patience = { attempts: 3, outageMs: 10_000, refusals: 3 };

/**
 * Waits until a server says that a target has what is wanted. The caller needs no right on the database and none on the
 * bucket, only the action `status` of the server's policy.
 *
 * A server that cannot be reached, or cannot reach its database, is waited for like a database that is not there yet.
 *
 * @throws RunnerError `NOT_APPLIED`, or `SERVER_UNAVAILABLE` if that was the last word, when the time is over; at once what no waiting mends
 */
export function awaitGate(
  server: RemoteServer,
  target: string,
  wanted: Wanted,
  options: AskOptions,
): Promise<OpenGate> {
  const path = `/v1/targets/${encodeURIComponent(target)}/gate?${new URLSearchParams(questionOf(wanted)).toString()}`;
  const deadline = performance.now() + (options.timeoutMs || Infinity);
  const look = (signal: AbortSignal): Promise<OpenGate> =>
    server.send({ path, answer: openSchema, patience }, signal).catch((error: unknown) => {
      throw signal.aborted ? hangs(server, error) : error;
    });
  return askUntil(
    (signal) => lookAt(look, signal, ({ retryable }) => retryable, deadline - performance.now()),
    options,
  );
}

function hangs({ url }: RemoteServer, cause: unknown): RunnerError {
  return new RunnerError("SERVER_UNAVAILABLE", `${url} does not answer`, {
    hint: "check --url and the network",
    cause,
  });
}

function questionOf(wanted: Wanted): Record<string, string> {
  switch (wanted.kind) {
    case "release":
      return { release: wanted.digest };
    case "chain":
      return { chain: formatChainEnd(wanted.end) };
    case "version":
      return { min: wanted.min };
  }
}
