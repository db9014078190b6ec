import type { StatementResult } from "./simple-query.ts";

export type { Row, StatementResult } from "./simple-query.ts";

/** What we have found out about a connection; whoever has it next knows it as well. */
export interface Known {
  /** a pooler is between us and the server; undefined: nobody has asked */
  isPooled: boolean | undefined;
  /** sent to it by whoever would have prepared their statements */
  messages: number;
  /** names of statements that it has, unless somebody has put them away */
  readonly prepared: Set<string>;
}

/**
 * One connection, spoken to by the simple protocol: a message may hold several statements, whole, so that
 * they also work through a pooler in transaction mode; what is prepared is `prepared.ts`'s to know.
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
  readonly known: Known;
  /** statements of the last message that the server has completed; when it failed, the next one is to blame */
  completed(): number;
  /** For whoever is about to let migrations work on it: nothing that is known will be true afterwards. */
  forget(): void;
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
