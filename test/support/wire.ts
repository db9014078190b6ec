/**
 * What passes between a client and a server on loopback, counted as it passes: what a program asks of a network does not
 * depend on the machine, as its times do. For tests and for `bench/`.
 */
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

import { taps, type Protocol } from "./wire-tap.ts";

/** What went over a wire since it was last reset. */
export interface Traffic {
  readonly connections: number;
  /** how often the client asked and then had to wait for the answer; connecting and logging in are not counted */
  readonly exchanges: number;
  /** all bytes, headers and log-in included */
  readonly bytesUp: number;
  readonly bytesDown: number;
}

/** A way to a server. Ended by whoever opened it. */
export interface Wire extends AsyncDisposable {
  readonly port: number;
  traffic(): Traffic;
  /** What was asked, one text an exchange: `GET /bucket/key`, the beginning of the SQL, the name of MongoDB's command. */
  asked(): readonly string[];
  reset(): void;
}

/** What a wire does besides counting. */
export interface WireOptions {
  /** added to each exchange, and to each new connection */
  readonly roundTripMs?: number;
  /** Asked of each exchange before it goes on to the server: nothing more of its connection does until it has resolved. */
  readonly hold?: (asked: string) => Promise<void>;
}

/** Opens a way on loopback to the server at a port of loopback. */
export async function openWire(
  port: number,
  protocol: Protocol,
  { roundTripMs = 0, hold }: WireOptions = {},
): Promise<Wire> {
  let traffic: Traffic = nothing;
  let asked: string[] = [];
  const add = (key: keyof Traffic, count: number): void => {
    traffic = { ...traffic, [key]: traffic[key] + count };
  };
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (client) => {
    add("connections", 1);
    const upstream = connect({ host: "127.0.0.1", port, allowHalfOpen: true, noDelay: true });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("close", () => sockets.delete(socket));
      socket.on("error", () => [client, upstream].forEach((other) => other.destroy()));
    }
    const held: Promise<void>[] = [];
    const tap = taps[protocol]((what) => {
      add("exchanges", 1);
      asked.push(what);
      if (hold !== undefined) held.push(hold(what));
    });
    const openAt = performance.now() + roundTripMs;
    const inOrder = queue();
    const onward = (act: () => void): void => {
      const now = performance.now();
      const dueAt = roundTripMs === 0 ? now : Math.max(now, openAt) + roundTripMs;
      inOrder(dueAt, held.splice(0), act);
    };
    // The whole delay is on the way up; what comes back passes at once.
    client.on("data", (bytes) => {
      add("bytesUp", bytes.length);
      tap.up(bytes);
      onward(() => upstream.write(bytes));
    });
    client.on("end", () => onward(() => upstream.end()));
    client.on("close", () => upstream.destroy());
    upstream.on("data", (bytes) => {
      add("bytesDown", bytes.length);
      tap.down(bytes);
      client.write(bytes);
    });
    upstream.on("end", () => client.end());
  });
  return {
    port: await listen(server),
    traffic: () => traffic,
    asked: () => asked,
    reset() {
      traffic = nothing;
      asked = [];
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

const nothing: Traffic = { connections: 0, exchanges: 0, bytesUp: 0, bytesDown: 0 };

/** Acts in order: each at its time, when what holds it is over, and after the one before. */
function queue(): (dueAt: number, held: readonly Promise<void>[], act: () => void) => void {
  let last: Promise<void> | undefined;
  return (dueAt, held, act) => {
    const restMs = dueAt - performance.now();
    if (last === undefined && restMs <= 0 && held.length === 0) return act();
    const acted = Promise.all([last ?? Promise.resolve(), ...held, sleep(Math.max(0, restMs))]).then(() => {
      if (last === acted) last = undefined;
      act();
    });
    last = acted;
  };
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve((server.address() as AddressInfo).port));
  });
}
