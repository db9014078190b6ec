import type { StatementCheckpoint } from "../../history/entry.ts";

/** What was noted of a command before it was sent. */
export type SentNote = Extract<StatementCheckpoint, { readonly kind: "sent" }>;

/** How long the server may work on a command that no transaction ends. */
export interface SendLimit {
  /** 0: as long as it takes */
  readonly maxTimeMs: number;
  /** by the server's clock, when it has surely ended; null: the server shows what it works on */
  readonly until: Date | null;
  /** the user asked for none: it is so short because a dead run's command could not be found */
  readonly isOurs: boolean;
  /** `performance.now()` up to which it can be sent, so that it has ended by then */
  readonly sendBy: number;
}

/** A command that was noted, and may be sent. */
export interface Noted {
  readonly note: SentNote;
  readonly limit: SendLimit;
}
