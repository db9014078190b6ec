import type { EventEmitter } from "node:events";
import type { Duplex } from "node:stream";
import { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

import pg from "pg";

import { RunnerError } from "../../error.ts";
import type { Address } from "./address.ts";
import { databaseFailure, isNotReadyYet, isRefusal, serverError } from "./failure.ts";
import { type Row, SimpleQuery, type StatementResult } from "./simple-query.ts";
import type { Whereabouts } from "./whereabouts.ts";

export type { Row, StatementResult } from "./simple-query.ts";

/**
 * One connection, spoken to by the simple protocol: a message may hold several statements and needs no
 * prepared statement, so the same code works through a pooler in transaction mode.
 */
export interface Connection {
  /**
   * Sends one message and gives the results of its statements.
   *
   * Throws what `pg` throws. When `signal` aborts, or nothing comes for `patienceMs`, the socket is closed and the call
   * rejects; the server may go on for a while.
   *
   * @param patienceMs - {@link answerMs} when absent: our own messages wait for nobody. `Infinity` for what may take long
   * @param values - for the one statement of a program that has parameters: the extended protocol, without a name
   */
  send(
    message: string,
    signal?: AbortSignal,
    patienceMs?: number,
    values?: readonly unknown[],
  ): Promise<readonly StatementResult[]>;
  /** as the server, or a pooler before it, said at start-up */
  readonly processId: number;
  /** statements of the last message that the server has completed; when it failed, the next one is to blame */
  completed(): number;
  /** true once the socket is gone; every further `send` rejects */
  isLost(): boolean;
  /** Back to the pool, or closed when `isBroken`. */
  release(isBroken?: boolean): void;
}

/** Gives connections to one database. */
export interface ConnectionPool {
  /** where to, for people */
  readonly shown: string;
  /** @throws RunnerError `DATABASE_…` */
  connect(signal: AbortSignal): Promise<Connection>;
  /** Repeated calls are fine. */
  close(): Promise<void>;
}

/** milliseconds without a byte in which the server answers a short message, or the network lets nothing through */
export const answerMs = 15_000;
/** Connections one target may hold: readers of a busy server, beside the three of a run. */
const maxConnections = 12;
/** milliseconds; as long as a server that is starting, or has no free slot, is asked again */
const notReadyPatienceMs = 30_000;
const idleTimeoutMs = 30_000;
/** milliseconds to say goodbye to a server that may not answer any more */
const closeMs = 2_000;
const keepAliveInitialDelayMs = 15_000;

/**
 * A pool that connects when first asked. Where a user or password is refused that is kept elsewhere and has changed there,
 * new connections are made with what is there now; those that stand, stay.
 */
export function openPool(where: Whereabouts): ConnectionPool {
  const opened = new Map<Address, Promise<pg.Pool>>();
  const pool = async (address: Address): Promise<pg.Pool> => {
    const opening = opened.get(address) ?? negotiate(address);
    opened.set(address, opening);
    try {
      return await opening;
    } catch (cause) {
      opened.delete(address);
      throw cause;
    }
  };
  const connectTo = async (address: Address): Promise<pg.PoolClient> => (await pool(address)).connect();
  const connectAnyhow = async (): Promise<pg.PoolClient> => {
    const address = await where.address();
    try {
      return await connectTo(address);
    } catch (cause) {
      if (!isRefusal(cause)) throw cause;
      const other = await where.address(address);
      if (other === address) throw cause;
      return connectTo(other);
    }
  };
  return {
    get shown() {
      return where.shown;
    },
    async connect(signal) {
      const giveUpAt = performance.now() + notReadyPatienceMs;
      for (let delayMs = 50; ; delayMs = Math.min(delayMs * 2, 1_000)) {
        signal.throwIfAborted();
        try {
          return wrap(await unlessAborted(connectAnyhow(), signal));
        } catch (cause) {
          if (!isNotReadyYet(cause) || performance.now() > giveUpAt)
            throw databaseFailure(cause, where.shown, where.hint);
          await sleep(delayMs * (0.5 + Math.random()), undefined, { signal });
        }
      }
    },
    async close() {
      const closing = [...opened.values()];
      opened.clear();
      const ended = Promise.allSettled(closing.map(async (opening) => (await opening).end()));
      await Promise.race([ended, sleep(closeMs, undefined, { ref: false })]);
    },
  };
}

/** `pg` cannot be told to stop connecting: a connection that comes too late goes straight back. */
function unlessAborted(connecting: Promise<pg.PoolClient>, signal: AbortSignal): Promise<pg.PoolClient> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      reject(signal.reason as Error);
      connecting.then(
        (client) => client.release(),
        () => undefined,
      );
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    connecting.finally(() => signal.removeEventListener("abort", onAbort)).then(resolve, reject);
  });
}

/** Finds out once, for all callers, whether the server wants TLS, as libpq does for `allow` and `prefer`. */
async function negotiate(address: Address): Promise<pg.Pool> {
  const ways = { disable: [false], allow: [false, true], prefer: [true, false], require: [true] }[
    address.tls
  ];
  for (const [index, secured] of ways.entries()) {
    const sockets: Socket[] = [];
    const candidate = poolOf(address, secured, sockets);
    try {
      (await candidate.connect()).release();
      return candidate;
    } catch (cause) {
      await candidate.end();
      // `pg` leaves a connection open whose log-in failed on our side; the server would wait for it for a minute.
      for (const socket of sockets) socket.destroy();
      if (index + 1 === ways.length || !isAboutTls(cause)) throw cause;
    }
  }
  throw new RunnerError("INTERNAL", "no way of connecting was tried");
}

/** The server has no TLS (`prefer` goes on without), or its pg_hba.conf takes none but TLS connections (`allow` goes on with). */
function isAboutTls(cause: unknown): boolean {
  const server = serverError(cause);
  return server === undefined
    ? cause instanceof Error && cause.message.includes("does not support SSL")
    : server.sqlstate === "28000";
}

/** `sockets` gets those of the first connections, until one has succeeded. */
function poolOf(address: Address, secured: boolean, sockets: Socket[]): pg.Pool {
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
  return pool;
}

function wrap(client: pg.PoolClient): Connection {
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
