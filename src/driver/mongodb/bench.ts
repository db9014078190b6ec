import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import type { Binary, ClientSession } from "mongodb";

import type { HistoryEntry } from "../../history/entry.ts";
import type { ForeignPlace } from "../../history/foreign.ts";
import type { RunAttempt } from "../../history/run.ts";
import type { LeaseOptions } from "../driver.ts";
import type { KeptLease, LeaseTimes } from "../lease-keeper.ts";
import { isConflict, isTransient } from "./command-error.ts";
import { answerMs, within, type MongoDatabase } from "./database.ts";
import type { StreamDocument } from "./documents.ts";
import { isAway, isCommitUnknown, lacksTransactions } from "./failure.ts";
import {
  changeEntry,
  insertEntries,
  readOneEntry,
  takeIds,
  type EntryChange,
  type NewEntry,
} from "./history.ts";
import { leaseLost, nameSessions, passFence, type LeaseKey } from "./lease.ts";
import { showsOperations } from "./operations.ts";
import { OwnEntries } from "./own-entries.ts";
import { endTransactions } from "./pass-on.ts";
import type { SeenStream } from "./state.ts";

/** What to do about commands that nobody waits for any more, and whom to tell. */
export type OrphanRules = Pick<LeaseOptions, "orphans" | "onOrphan">;

/** What a bench is made of; the lease is held already. */
export interface BenchParts {
  readonly database: MongoDatabase;
  readonly environment: string;
  readonly targetId: string;
  readonly times: LeaseTimes;
  readonly orphans: OrphanRules;
  /** the server's clock when the lease was taken, and `performance.now()` then */
  readonly acquiredAt: { readonly server: Date; readonly local: number };
}

/** milliseconds between two tries at a server that is away; doubles up to the longest */
const againMs = { first: 50, longest: 1_000 };

/**
 * What a held lease works with. Its key does not change: transactions are the server's, and outlive a connection.
 * Lives as long as the lease.
 */
export class Bench {
  readonly database: MongoDatabase;
  readonly environment: string;
  readonly targetId: string;
  readonly times: LeaseTimes;
  readonly orphans: OrphanRules;
  /** of bodies that run command by command */
  readonly entries = new OwnEntries(this);
  /** id of the newest history entry that this run added */
  lastEntryId = 0;
  /** the stream as it was read last under the lease */
  stream: SeenStream | undefined;
  /** another tool's record that is kept true with every entry; null where there is none */
  inStep: ForeignPlace | null = null;
  readonly #key: LeaseKey;
  readonly #acquiredAt: BenchParts["acquiredAt"];
  /** ids of the driver's sessions that the lease names, by themselves in hex */
  readonly #sessions = new Map<string, Binary>();
  /** a property of the server or the service, so it is asked for once */
  #isShown: Promise<boolean> | undefined;
  #attempt: RunAttempt | undefined;
  #kept: KeptLease | undefined;

  constructor(parts: BenchParts, key: LeaseKey, session?: Binary) {
    this.database = parts.database;
    this.environment = parts.environment;
    this.targetId = parts.targetId;
    this.times = parts.times;
    this.orphans = parts.orphans;
    this.#acquiredAt = parts.acquiredAt;
    this.#key = key;
    if (session !== undefined) this.#sessions.set(session.toString("hex"), session);
  }

  /** Starts to be guarded by the heartbeats of `kept`. */
  guardBy(kept: KeptLease): void {
    this.#kept = kept;
  }

  get kept(): KeptLease {
    if (this.#kept === undefined) throw new TypeError("the bench is not guarded yet");
    return this.#kept;
  }

  /** The run has begun its attempt. */
  begun(attempt: RunAttempt): void {
    this.#attempt = attempt;
  }

  get attempt(): RunAttempt {
    if (this.#attempt === undefined) throw new TypeError("the run has not begun its attempt yet");
    return this.#attempt;
  }

  key(): LeaseKey {
    return this.#key;
  }

  /** What the stream says under the lease. */
  saw(stream: SeenStream): void {
    this.stream = stream;
    this.inStep = stream.state.inStep;
  }

  /** Whether the server shows what it works on. */
  showsOperations(): Promise<boolean> {
    this.#isShown ??= showsOperations(this.database.db, this.kept.signal);
    return this.#isShown;
  }

  /** The server's clock, as far as it can be told without asking: when the lease was taken, and what has passed here since. */
  now(): Date {
    const { server, local } = this.#acquiredAt;
    return new Date(server.getTime() + performance.now() - local);
  }

  /**
   * One transaction, which begins with the fence: all that `work` does in its session takes effect, or nothing, and nothing
   * where another has the lease. The fence and the commit are tried again; what `work` throws is thrown as it is, after the
   * transaction has been ended.
   *
   * The transaction has a name, which the fence writes. If a commit's answer is lost and the next try finds that name, it
   * did commit, and `work` is not done a second time.
   *
   * @param work - also given the stream's document as the fence has found it
   * @param change - of the stream's document, which the fence writes with it: before all that `work` does
   * @throws RunnerError `LEASE_LOST`, or the run's own reason when it is to stop
   */
  async transaction<T>(
    work: (session: ClientSession, before: StreamDocument) => Promise<T>,
    change?: Partial<StreamDocument>,
  ): Promise<T> {
    const name = randomUUID();
    let sent: { readonly value: T } | undefined;
    for (let delayMs = againMs.first; ; delayMs = longer(delayMs)) {
      this.kept.assertTrusted();
      const session = this.database.client.startSession();
      let isOurs = true;
      try {
        await this.#nameSession(session);
        session.startTransaction({
          readConcern: { level: "snapshot" },
          writeConcern: { w: "majority" },
          readPreference: "primary",
        });
        const before = await this.#within(() => passFence(this.database, this.#key, name, session, change));
        if (sent !== undefined && before.transaction === name) return sent.value;
        sent = undefined;
        isOurs = false;
        const value = await work(session, before);
        isOurs = true;
        sent = { value };
        await this.#commit(session);
        return value;
      } catch (cause) {
        if (!isOurs || !(isTransient(cause) || isAway(cause))) throw cause;
        if (isConflict(cause)) await this.#endEarlier(session);
      } finally {
        await abandon(session);
      }
      await this.#pause(delayMs);
    }
  }

  /**
   * Writes our own state. In one transaction where the server has them. Where it has none, the fence is passed first and
   * each write is made by itself, filtered by token and run: so `work` has to write in such an order that a death between
   * two leaves what the next run reads rightly, and each of its writes may be made twice.
   *
   * @throws RunnerError `LEASE_LOST` - another has the lease; nothing was written
   */
  async write<T>(
    work: (session: ClientSession | undefined, before: StreamDocument) => Promise<T>,
    change?: Partial<StreamDocument>,
  ): Promise<T> {
    for (let delayMs = againMs.first; this.database.hasTransactions; delayMs = longer(delayMs)) {
      try {
        return await this.transaction(work, change);
      } catch (cause) {
        // A replica set to the driver, and yet without them: some services that only speak the protocol.
        if (lacksTransactions(cause)) this.database.giveUpTransactions();
        // Of our own writes, so nothing of it is there.
        else if (!isTransient(cause) && !isAway(cause)) throw cause;
      }
      await this.#pause(delayMs);
    }
    const before = await this.again(() =>
      passFence(this.database, this.#key, randomUUID(), undefined, change),
    );
    return work(undefined, before);
  }

  /** One of our own writes: in its session as it is, else tried again until the server is back or the lease no longer ours. */
  async own<T>(session: ClientSession | undefined, write: () => Promise<T>): Promise<T> {
    return session === undefined ? this.again(write) : write();
  }

  /** Asks or writes by itself, again and again while the server is away and the lease still ours. */
  async again<T>(action: () => Promise<T>): Promise<T> {
    for (let delayMs = againMs.first; ; delayMs = longer(delayMs)) {
      this.kept.assertTrusted();
      try {
        return await this.#within(action);
      } catch (cause) {
        if (!isAway(cause)) throw cause;
      }
      await this.#pause(delayMs);
    }
  }

  /**
   * Adds entries to the history, in a transaction's session or, where the server has none, fenced by themselves.
   *
   * @returns id of the first; the others follow it
   * @throws RunnerError `LEASE_LOST`
   */
  async addEntries(session: ClientSession | undefined, entries: readonly NewEntry[]): Promise<number> {
    const first = await this.own(session, () => takeIds(this.database, this.#key, entries.length, session));
    // Between the two a process may freeze, and then add an entry under a lost lease: only where the server has no
    // transactions, and there it tells the truth, because what it is about has been sent without a fence as well.
    await this.own(session, () => insertEntries(this.database, this.#key.stream, first, entries, session));
    this.lastEntryId = first + entries.length - 1;
    return first;
  }

  /**
   * Changes an entry that this run added.
   *
   * @throws RunnerError `LEASE_LOST` - it is no longer ours
   */
  async updateEntry(session: ClientSession | undefined, id: number, change: EntryChange): Promise<void> {
    await this.own(session, () => changeEntry(this.database, this.#key, id, change, session));
  }

  /** An entry that this run added, as the database has it. */
  async readEntry(id: number): Promise<HistoryEntry> {
    const found = await this.again(() => readOneEntry(this.database, this.#key.stream, id));
    if (found === undefined) throw leaseLost();
    return found;
  }

  /** Before its first transaction: whoever takes over from a dead runner has the server end what is open in it. */
  async #nameSession({ id }: ClientSession): Promise<void> {
    if (id === undefined || this.#sessions.has(id.id.toString("hex"))) return;
    await this.#within(() => nameSessions(this.database, this.#key, [...this.#sessions.values(), id.id]));
    this.#sessions.set(id.id.toString("hex"), id.id);
  }

  /** A transaction of our own whose end was lost with its connection: the server keeps it for a minute, in the fence's way. */
  async #endEarlier({ id }: ClientSession): Promise<void> {
    const own = id?.id.toString("hex");
    const earlier = [...this.#sessions].filter(([hex]) => hex !== own).map(([, each]) => each);
    if (earlier.length === 0) return;
    await this.#within(() => endTransactions(this.database, earlier, this.kept.signal)).catch(
      () => undefined,
    );
  }

  async #commit(session: ClientSession): Promise<void> {
    for (let delayMs = againMs.first; ; delayMs = longer(delayMs)) {
      try {
        return await this.#within(() => session.commitTransaction());
      } catch (cause) {
        if (!isCommitUnknown(cause)) throw cause;
        this.kept.assertTrusted();
      }
      await this.#pause(delayMs);
    }
  }

  #within<T>(action: () => Promise<T>): Promise<T> {
    return within(action, this.kept.signal, Math.max(this.times.leaseMs, answerMs));
  }

  async #pause(delayMs: number): Promise<void> {
    const { signal } = this.kept;
    await sleep(delayMs * (0.5 + Math.random()), undefined, { signal }).catch(() => undefined);
  }
}

function longer(delayMs: number): number {
  return Math.min(delayMs * 2, againMs.longest);
}

/** Ends what is left of a transaction, and does not wait for a server that is away. */
async function abandon(session: ClientSession): Promise<void> {
  const ended = session.endSession().catch(() => undefined);
  if (session.inTransaction()) await Promise.race([ended, sleep(1_000, undefined, { ref: false })]);
}
