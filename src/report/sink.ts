import type { Emit } from "../executor/event.ts";

/** Where text goes: a terminal, a pipe, a file. */
export interface Sink {
  readonly isTerminal: boolean;
  /** characters in a line, where it is known */
  readonly columns: number | undefined;
  write(text: string): void;
}

/** Shows how a run goes on. */
export interface Reporter {
  readonly emit: Emit;
  /** How far a run on a server is; for whoever polls instead of receiving events. */
  progress(done: number, total: number, current: string | null): void;
  /** Leaves the terminal as it was; nothing is shown afterwards. */
  end(): void;
}
