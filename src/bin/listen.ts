import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { createAdaptorServer } from "@hono/node-server";
import { RunnerError } from "../error.ts";
import { createApp } from "../http/app.ts";
import type { HttpDeps, HttpEnv } from "../http/context.ts";

/** A server that takes requests. */
export interface ListeningServer {
  /** `http://127.0.0.1:8080`, where it listens */
  readonly url: string;
  /** resolves when it was told to stop by its signal, and its last run has ended */
  readonly stopped: Promise<void>;
}

/** What a slow or greedy client may take of a socket. */
const socketLimits = {
  /** bytes of all headers; a token is the largest of them */
  maxHeaderSize: 16 * 1024,
  /** milliseconds to send the headers, and the whole request */
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  /** longer than the balancers in front keep theirs, 60 s by default, or they would send into a closed connection */
  keepAliveTimeout: 65_000,
  connectionsCheckingInterval: 2_000,
} as const;
const maxConnections = 2_048;

/** Milliseconds that answers under way have, once all runs have ended. */
const lastAnswersMs = 5_000;
const sweepMs = 20;

/**
 * Serves the API on a socket, and goes on with runs that another server left, unless `deps.handOver` has them done
 * elsewhere. When `deps.signal` aborts it takes no new connections, hands its runs over at their next safe point, ends waits
 * and streams, and is stopped when it has none left.
 *
 * @param deps.publicUrl - where callers reach it; undefined: where it listens
 * @throws RunnerError `CONFIG` — the address cannot be listened on
 */
export async function listen(
  deps: Omit<HttpDeps, "publicUrl"> & { readonly publicUrl: string | undefined },
  at: { readonly host: string; readonly port: number },
): Promise<ListeningServer> {
  // The port may be any free one, and links need it: so the app is made once it is known.
  let answer = (_request: Request, _env: HttpEnv["Bindings"]): Response | Promise<Response> =>
    new Response(null, { status: 503 });
  const server = createAdaptorServer({
    fetch: (request, env) => answer(request, env),
    // the platform's own Request and Response stay as they are
    overrideGlobalObjects: false,
    createServer,
    serverOptions: { ...socketLimits },
  }) as Server;
  server.maxConnections = maxConnections;
  const url = await opened(server, at);
  const { hono, pickUp, drained } = createApp({ ...deps, publicUrl: deps.publicUrl ?? url });
  answer = (request, { incoming }) => hono.fetch(request, { incoming });
  // Where runs go on in executions of their own, this process may be stopped with its answers: it takes none.
  if (deps.handOver === undefined) void again(pickUp, deps.limits.pickUpMs, deps.signal);
  return { url, stopped: stopping(server, deps.signal, drained) };
}

/** Now, and `ms` after each end, until the signal aborts. */
async function again(act: () => Promise<void>, ms: number, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await act();
    await sleep(ms, undefined, { signal, ref: false }).catch(() => undefined);
  }
}

/**
 * Has a server listen.
 *
 * @returns its URL, with the port that it got where `port` is 0
 * @throws RunnerError `CONFIG` — the address cannot be listened on
 */
export async function opened(
  server: Server,
  { host, port }: { readonly host: string; readonly port: number },
): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once("error", reject).listen({ host, port }, resolve);
  try {
    await promise;
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
    throw new RunnerError("CONFIG", `cannot listen on ${host}:${port} (${code})`, {
      hint: "choose another address with listen: or metrics: in the configuration, or --listen",
      cause,
    });
  }
  const address = server.address() as AddressInfo;
  return `http://${host.includes(":") ? `[${host}]` : host}:${address.port}`;
}

async function stopping(server: Server, signal: AbortSignal, drained: () => Promise<void>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  if (signal.aborted) resolve();
  else signal.addEventListener("abort", () => resolve(), { once: true });
  await promise;
  const closed = new Promise<void>((done) => server.close(() => done()));
  await drained();
  // Connections that answered their last request after `close` would be kept for the next one.
  const sweep = setInterval(() => server.closeIdleConnections(), sweepMs);
  const impatience = setTimeout(() => server.closeAllConnections(), lastAnswersMs);
  await closed;
  clearInterval(sweep);
  clearTimeout(impatience);
}
