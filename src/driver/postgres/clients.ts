import type { EventEmitter } from "node:events";
import { Socket } from "node:net";
import type { Duplex } from "node:stream";

import pg from "pg";

import type { Address } from "./address.ts";
import { answerMs, type Connection, type Known } from "./connection.ts";
import { type Row, SimpleQuery } from "./simple-query.ts";

/** The clients of `pg` that one address has, as connections. */
export interface Clients {
  /** Throws what `pg` throws. */
  connect(): Promise<Connection>;
  end(): Promise<void>;
}

/** Connections one target may hold: readers of a busy server, beside the three of a run. */
const maxConnections = 12;
const idleTimeoutMs = 30_000;
const keepAliveInitialDelayMs = 15_000;

/**
 * A pool of `pg` for one address, by TLS or without; it connects when first asked.
 *
 * @param sockets - gets those of the first connections, until one has succeeded
 */
export function openClients(address: Address, secured: boolean, sockets: Socket[]): Clients {
  const pool = new pg.Pool({
    host: address.host,
    port: address.port,
    database: address.database,
    user: address.user,
    password: address.password,
    ssl: secured ? address.tlsOptions : false,
    stream: () => {
      const socket = new Socket();
      if (pool.totalCount < 2) sockets.push(socket);
      return socket;
    },
    options: address.startupOptions,
    application_name: address.applicationName,
    connectionTimeoutMillis: address.connectTimeoutMs,
    keepAlive: true,
    keepAliveInitialDelayMillis: keepAliveInitialDelayMs,
    max: maxConnections,
    idleTimeoutMillis: idleTimeoutMs,
    allowExitOnIdle: true,
  });
  // An idle connection that the server ends is not an error: the next caller gets a new one.
  pool.on("error", () => undefined);
  // From its first moment on: a server that greets and ends a connection in one breath says so before `connect` has
  // given it to us, and an error that nobody listens to would end the process.
  pool.on("connect", (client) => client.on("error", () => undefined));
  return { connect: async () => connectionOf(await pool.connect()), end: () => pool.end() };
}

const knownOf = new WeakMap<pg.PoolClient, Known>();

function connectionOf(client: pg.PoolClient): Connection {
  const known = knownOf.get(client) ?? { isPooled: undefined, messages: 0, prepared: new Set() };
  knownOf.set(client, known);
  let lost = false;
  let released = false;
  const onError = (): void => {
    lost = true;
  };
  client.on("error", onError);
  client.on("end", onError);
  // `pg` gives the results of a message only when all of it succeeded.
  const protocol = Reflect.get(client, "connection") as EventEmitter & { readonly stream: Duplex };
  let completed = 0;
  const onComplete = (): void => {
    completed += 1;
  };
  protocol.on("commandComplete", onComplete);
  return {
    processId: Number(Reflect.get(client, "processID")),
    known,
    async send(message, signal, patienceMs = answerMs, values = []) {
      signal?.throwIfAborted();
      const cut = (): void => {
        lost = true;
        // The only way to stop waiting for a server that no longer answers.
        protocol.stream.destroy();
      };
      signal?.addEventListener("abort", cut, { once: true });
      const silence = patienceMs === Infinity ? undefined : setTimeout(cut, patienceMs);
      const onBytes = (): void => void silence?.refresh();
      protocol.stream.on("data", onBytes);
      completed = 0;
      try {
        if (values.length === 0) return await client.query(new SimpleQuery(message)).answer;
        return [await client.query<Row>(message, [...values])];
      } finally {
        clearTimeout(silence);
        protocol.stream.off("data", onBytes);
        signal?.removeEventListener("abort", cut);
      }
    },
    completed: () => completed,
    forget() {
      known.messages = 0;
      known.prepared.clear();
    },
    isLost: () => lost,
    release(isBroken = false) {
      if (released) return;
      released = true;
      client.off("error", onError);
      client.off("end", onError);
      protocol.off("commandComplete", onComplete);
      if (isBroken) protocol.stream.destroy();
      client.release(isBroken || lost);
    },
  };
}
