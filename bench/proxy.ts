import { createServer, type AddressInfo, type Server, type Socket, connect } from "node:net";

/** What went through a proxy since it was last reset. */
export interface Traffic {
  connections: number;
  /** HTTP requests, or times a PostgreSQL client sent queries and then had to wait; connecting and logging in are not counted */
  exchanges: number;
}

/** A way to a server that takes a given time, and counts. */
export interface Proxy extends AsyncDisposable {
  readonly port: number;
  traffic(): Readonly<Traffic>;
  reset(): void;
}

/** Starts a proxy on loopback that adds `roundTripMs` to each round trip to a server on loopback, and to each new connection. */
export async function startProxy(
  target: number,
  protocol: "http" | "postgres",
  roundTripMs: number,
): Promise<Proxy> {
  const traffic: Traffic = { connections: 0, exchanges: 0 };
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    traffic.connections += 1;
    const upstream = connect({ host: "127.0.0.1", port: target, allowHalfOpen: true, noDelay: true });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      socket.on("error", () => {
        client.destroy();
        upstream.destroy();
      });
    }
    join(
      client,
      upstream,
      protocol === "http" ? httpCounter(traffic) : postgresCounter(traffic),
      roundTripMs,
    );
  });
  const port = await listen(server);
  return {
    port,
    traffic: () => ({ ...traffic }),
    reset: () => Object.assign(traffic, { connections: 0, exchanges: 0 }),
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Told of every piece of a conversation, in order. */
interface Counter {
  up(bytes: Buffer): void;
  down(): void;
}

/** The whole delay is on the way up, in order; what comes back passes at once. A connection costs one round trip more. */
function join(client: Socket, upstream: Socket, counter: Counter, roundTripMs: number): void {
  const openAt = performance.now() + roundTripMs;
  const delay = queue((now) => Math.max(now, openAt) + roundTripMs);
  client.on("data", (bytes) => {
    counter.up(bytes);
    delay(() => upstream.write(bytes));
  });
  client.on("end", () => delay(() => upstream.end()));
  upstream.on("data", (bytes) => {
    counter.down();
    client.write(bytes);
  });
  upstream.on("end", () => client.end());
  client.on("close", () => upstream.destroy());
}

/** Runs what it is given at its time, never before what was given earlier. */
function queue(dueAt: (now: number) => number): (act: () => void) => void {
  let last = Promise.resolve();
  return (act) => {
    const due = dueAt(performance.now());
    last = last
      .then(() => {
        const restMs = due - performance.now();
        return restMs <= 0 ? undefined : new Promise<void>((resolve) => setTimeout(resolve, restMs));
      })
      .then(act);
  };
}

function httpCounter(traffic: Traffic): Counter {
  return {
    up(bytes) {
      // No tool here pipelines, so a request starts a piece of its own.
      if (/^[A-Z]+ \S+ HTTP\/1\.1\r\n/.test(bytes.toString("latin1", 0, 4_096))) traffic.exchanges += 1;
    },
    down: () => undefined,
  };
}

/** Query and Sync: after either of these a client waits for the server. */
const waits = new Set(["Q".charCodeAt(0), "S".charCodeAt(0)]);

/** Follows the client's messages: a start-up message (four bytes of length), then messages with one byte of type before it. */
function postgresCounter(traffic: Traffic): Counter {
  let rest = Buffer.alloc(0);
  /** bytes of the current message still to come */
  let skip = 0;
  let hasStarted = false;
  let isWaiting = false;
  return {
    up(bytes) {
      rest = Buffer.concat([rest, bytes]);
      for (;;) {
        const skipped = Math.min(skip, rest.length);
        rest = rest.subarray(skipped);
        skip -= skipped;
        const typeBytes = hasStarted ? 1 : 0;
        if (skip > 0 || rest.length < typeBytes + 4) return;
        if (hasStarted && waits.has(rest[0] ?? 0) && !isWaiting) {
          traffic.exchanges += 1;
          isWaiting = true;
        }
        skip = typeBytes + rest.readUInt32BE(typeBytes);
        hasStarted = true;
      }
    },
    down() {
      isWaiting = false;
    },
  };
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
  });
}
