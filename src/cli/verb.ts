import type { Context } from "./context.ts";
import type { Flag } from "./flag.ts";
import type { Output } from "./output.ts";
import type { Ending } from "./termination.ts";

/** One verb of the command line: what its help teaches and what it does. */
export interface Verb {
  /** `up`, or `release show` */
  readonly name: string;
  /** one or two sentences under the usage line */
  readonly about: string;
  readonly parameters: readonly Parameter[];
  readonly flags: readonly Flag<unknown>[];
  readonly examples: readonly Example[];
  /** exit codes that a caller of this verb should know, see `exit-code.ts` */
  readonly exits: readonly number[];
  /** what the first SIGINT or SIGTERM does, where it is not that the run stops at its next safe point */
  readonly whenInterrupted?: string;
  /** Does it; gives the exit code. Heavy parts are imported inside. */
  run(invocation: Invocation): Promise<number>;
}

/** A word after the verb. */
export interface Parameter {
  /** `name`, shown as `<name>` or `[name]` */
  readonly name: string;
  readonly text: string;
  readonly isRequired: boolean;
}

/** A command line worth copying, and what it does. */
export interface Example {
  readonly line: string;
  readonly means: string;
}

/** One call of a verb, its command line parsed. */
export interface Invocation {
  readonly context: Context;
  readonly output: Output;
  /** aborts on SIGINT and SIGTERM */
  readonly signal: AbortSignal;
  /** the flag's value: from the command line, else its variable, else its default; the default also where the verb lacks the flag */
  get<T>(flag: Flag<T>): T;
  /** How it ended, for a container's last words; what is thrown is told by itself. */
  ended(how: Ending): void;
  /** every verb there is, loaded: what completion is made from */
  everyVerb(): Promise<readonly Verb[]>;
  /** the word given for a parameter; undefined when it was left out */
  word(name: string): string | undefined;
}
