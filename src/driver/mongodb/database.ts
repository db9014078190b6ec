import { setTimeout as sleep } from "node:timers/promises";

import {
  MongoClient,
  MongoNetworkError,
  type Db,
  type Document,
  type ServerHeartbeatSucceededEvent,
} from "mongodb";

import { RunnerError } from "../../error.ts";
import type { Address } from "./address.ts";
import { collectionsOf, createCollections, createRoots, type Collections } from "./documents.ts";
import { databaseFailure, Silence } from "./failure.ts";

/** milliseconds in which the server answers to one of our own commands, or the network lets nothing through */
export const answerMs = 15_000;
/** milliseconds to find a server that can be used, where the URL does not say */
const selectionMs = 10_000;
/** Connections one target may hold: readers of a busy server, beside those of a run. */
const maxConnections = 12;
/** milliseconds to say goodbye to a server that may not answer any more */
const closeMs = 2_000;

/** What the server says of itself. */
export interface ServerFacts {
  /** a replica set or a sharded cluster; a stand-alone server has none */
  readonly hasTransactions: boolean;
  readonly isReadOnly: boolean;
  readonly wireVersion: number;
  /** its clock */
  readonly now: Date;
}

/** One database with our collections in it, which may not be there yet. */
export class MongoDatabase {
  readonly shownUrl: string;
  readonly client: MongoClient;
  /** as the URL says, for bodies; writes wait for the majority */
  readonly db: Db;
  readonly collections: Collections;
  /** the URL's `x-transaction-mode`: a body is one transaction or nothing */
  readonly isOneTransaction: boolean;
  #hasTransactions: boolean | undefined;
  #opened: Promise<ServerFacts> | undefined;
  /** what each server said of itself last, when the driver watched it, and `performance.now()` then */
  readonly #watched = new Map<string, { readonly hello: Document; readonly at: number }>();
  #isReadOnly = false;
  #isPrepared = false;
  #hasRoots = false;

  /**
   * @throws RunnerError `USAGE` - the official driver does not take the URL; `CONFIG` - MongoDB takes no such prefix
   */
  constructor(address: Address, prefix: string) {
    this.shownUrl = address.shown;
    this.isOneTransaction = address.transactionMode === true;
    this.client = openClient(address);
    this.client.on("serverHeartbeatSucceeded", ({ connectionId, reply }: ServerHeartbeatSucceededEvent) =>
      this.#watched.set(connectionId, { hello: reply, at: performance.now() }),
    );
    this.client.on("serverClosed", (event) => this.#watched.delete(event.address));
    this.db = this.client.db(address.database, {
      writeConcern: { w: "majority" },
      readPreference: "primary",
    });
    this.collections = collectionsOf(this.db, prefix);
  }

  /** Known once the server was asked anything; false also where the server turned out to have none although it is a replica set. */
  get hasTransactions(): boolean {
    return this.#hasTransactions === true;
  }

  /** The server has no transactions after all. */
  giveUpTransactions(): void {
    this.#hasTransactions = false;
  }

  /**
   * Connects, before anything is asked: of several questions at once each would do so, and fail for what another's failure
   * did.
   *
   * @returns what the server said then
   */
  async open(): Promise<ServerFacts> {
    // A client that failed to connect does so again only when it is told to.
    this.#opened ??= this.client.connect().then(() => this.#lately() ?? this.#hello());
    try {
      return await this.#opened;
    } catch (cause) {
      this.#opened = undefined;
      throw cause;
    }
  }

  /** Whether questions may be asked at once. */
  get isOpen(): boolean {
    return this.#hasTransactions !== undefined;
  }

  /**
   * The server's clock, by what the driver heard of it last, which is seconds ago at most, and what has passed here since: never
   * ahead of it, unless somebody has put it back meanwhile. So whoever may take a lease from another by it asks for `facts`.
   */
  async clock(signal: AbortSignal): Promise<Date> {
    if (!this.isOpen) return (await this.open()).now;
    return (this.#lately() ?? (await this.#hello(signal))).now;
  }

  /** What the server says of itself now; asked beside another question, it costs no time. */
  async facts(signal: AbortSignal): Promise<ServerFacts> {
    return this.isOpen ? this.#hello(signal) : this.open();
  }

  /**
   * For whoever is about to take a lease; asks only where nobody has asked before.
   *
   * @throws RunnerError `DATABASE_READ_ONLY` - the server takes no writes
   */
  async assertWritable(signal: AbortSignal): Promise<void> {
    if (!this.isOpen || this.#isReadOnly) await this.facts(signal);
    if (!this.#isReadOnly) return;
    throw new RunnerError("DATABASE_READ_ONLY", `${this.shownUrl}: the server takes no writes`, {
      hint: "connect to the primary: name the replica set in the URL, without directConnection",
    });
  }

  /** Creates our collections where nobody has. */
  async prepare(signal: AbortSignal): Promise<void> {
    if (this.#isPrepared) return;
    await this.assertWritable(signal);
    await createCollections(this.collections, answerMs);
    this.#isPrepared = true;
  }

  /** Creates the collection of roots where nobody has, in a database that an earlier build has prepared, too. */
  async prepareRoots(): Promise<void> {
    if (this.#hasRoots) return;
    await createRoots(this.collections, answerMs);
    this.#hasRoots = true;
  }

  /** A stream's document was seen: our collections are there. */
  sawStream(): void {
    this.#isPrepared = true;
  }

  get isPrepared(): boolean {
    return this.#isPrepared;
  }

  /** Asks, for as long as `signal` lets us and the server may need; what fails comes out under its public code. */
  async use<T>(signal: AbortSignal, action: () => Promise<T>): Promise<T> {
    try {
      return await within(async () => {
        if (!this.isOpen) await this.open();
        return action();
      }, signal);
    } catch (cause) {
      signal.throwIfAborted();
      throw databaseFailure(cause, this.shownUrl);
    }
  }

  async #hello(signal?: AbortSignal): Promise<ServerFacts> {
    const options = signal === undefined ? {} : { signal };
    const ask = (): Promise<Document> => this.db.command({ hello: 1, maxTimeMS: answerMs }, options);
    // The driver asks its own questions a second time where the connection was lost, but no command of another's.
    const hello = await ask().catch((cause: unknown) => {
      if (cause instanceof MongoNetworkError) return ask();
      throw cause;
    });
    return this.#learn(hello, 0);
  }

  /** Of the server that takes writes, or the only one; undefined where the driver watches none. */
  #lately(): ServerFacts | undefined {
    const all = [...this.#watched.values()];
    const primary = all.find(
      ({ hello }) => hello["isWritablePrimary"] === true || hello["msg"] === "isdbgrid",
    );
    const watched = primary ?? (all.length === 1 ? all[0] : undefined);
    return watched === undefined ? undefined : this.#learn(watched.hello, performance.now() - watched.at);
  }

  #learn(hello: Document, agoMs: number): ServerFacts {
    const { localTime, setName, msg, maxWireVersion, isWritablePrimary, readOnly } = hello;
    const facts = {
      hasTransactions: typeof setName === "string" || msg === "isdbgrid",
      isReadOnly: isWritablePrimary === false || readOnly === true,
      wireVersion: Number(maxWireVersion),
      now: new Date(localTime instanceof Date ? localTime.getTime() + agoMs : Number.NaN),
    };
    this.#hasTransactions ??= facts.hasTransactions;
    this.#isReadOnly = facts.isReadOnly;
    return facts;
  }

  /** Repeated calls are fine. */
  async close(): Promise<void> {
    const closed = this.client.close().catch(() => undefined);
    await Promise.race([closed, sleep(closeMs, undefined, { ref: false })]);
  }
}

/**
 * Waits for an answer no longer than until `signal` fires or `patienceMs` are over: a server that is silent would keep us
 * for ever. What is no longer waited for may still take effect, so it has to be something that may.
 */
export function within<T>(
  action: () => Promise<T>,
  signal: AbortSignal,
  patienceMs = 2 * answerMs,
): Promise<T> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error);
    const onAbort = (): void =>
      reject(isTimeout(signal.reason) ? new Silence("no answer in time") : (signal.reason as Error));
    signal.addEventListener("abort", onAbort, { once: true });
    const silence = setTimeout(() => reject(new Silence("no answer in time")), patienceMs);
    action()
      .finally(() => {
        clearTimeout(silence);
        signal.removeEventListener("abort", onAbort);
      })
      .then(resolve, reject);
  });
}

/** A signal of ours that fired because its time was over: nobody asked to stop. */
function isTimeout(reason: unknown): boolean {
  return reason instanceof DOMException && reason.name === "TimeoutError";
}

function openClient(address: Address): MongoClient {
  try {
    return new MongoClient(address.url, {
      appName: "lockkeeper",
      maxPoolSize: maxConnections,
      // What is asked for in the URL wins.
      ...(address.hasSelectionTimeout ? {} : { serverSelectionTimeoutMS: selectionMs }),
    });
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : "it cannot be read";
    // The driver may quote what it could not read.
    const isSafe = !address.url
      .split(/[:/@?&=,]/)
      .some((part) => part.length > 3 && why.includes(part) && !/^[a-z]+$/i.test(part));
    throw new RunnerError("USAGE", `cannot use the database URL${isSafe ? `: ${why}` : ""}`, {
      hint: "its parameters are those of MongoDB's official drivers",
    });
  }
}
