import type { Socket } from "node:net";
import { setImmediate as nextTurn, setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import type { Address } from "./address.ts";
import type { Clients } from "./clients.ts";
import type { Connection, ConnectionPool } from "./connection.ts";
import { databaseFailure, isNotReadyYet, isRefusal, serverError } from "./failure.ts";
import type { Whereabouts } from "./whereabouts.ts";

/** milliseconds; as long as a server that is starting, or has no free slot, is asked again */
const notReadyPatienceMs = 30_000;
/** milliseconds to say goodbye to a server that may not answer any more */
const closeMs = 2_000;

/**
 * A pool that connects when first asked. Where a user or password is refused that is kept elsewhere and has changed there,
 * new connections are made with what is there now; those that stand, stay.
 */
export function openPool(where: Whereabouts): ConnectionPool {
  const opened = new Map<Address, Promise<Clients>>();
  const clients = async (address: Address): Promise<Clients> => {
    const opening = opened.get(address) ?? negotiate(address);
    opened.set(address, opening);
    try {
      return await opening;
    } catch (cause) {
      opened.delete(address);
      throw cause;
    }
  };
  const connectTo = async (address: Address): Promise<Connection> => (await clients(address)).connect();
  const connectAnyhow = async (): Promise<Connection> => {
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
          return await unlessAborted(connectAnyhow(), signal);
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
function unlessAborted(connecting: Promise<Connection>, signal: AbortSignal): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => {
      reject(signal.reason as Error);
      connecting.then(
        (connection) => connection.release(),
        () => undefined,
      );
    };
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    connecting.finally(() => signal.removeEventListener("abort", onAbort)).then(resolve, reject);
  });
}

/** Finds out once, for all callers, whether the server wants TLS, as libpq does for `allow` and `prefer`. */
async function negotiate(address: Address): Promise<Clients> {
  // Loading `pg` takes as long as a server nearby does to answer: what was sent just before, such as the question to a
  // bucket, is on its way first.
  await nextTurn();
  const { openClients } = await import("./clients.ts");
  const ways = { disable: [false], allow: [false, true], prefer: [true, false], require: [true] }[
    address.tls
  ];
  for (const [index, secured] of ways.entries()) {
    const sockets: Socket[] = [];
    const candidate = openClients(address, secured, sockets);
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
