import type { Command } from "./measure.ts";
import type { Line } from "./result.ts";

/** How lockkeeper is run: the compiled program, as installed, by this process's own Node. */
export interface Ours {
  /** the file that package.json's `bin` names */
  readonly cli: string;
}

/** What a scene is given to measure with. */
export interface Bench {
  readonly ours: Ours;
  /** fewer runs and smaller sizes: shows that everything works, proves no number */
  readonly isQuick: boolean;
  /** numbers of migrations, where a person asked for them by `--sizes` */
  readonly sizes?: readonly number[];
  /** only tools whose name contains this, where a person asked by `--tools`: to look into something, with `--results` elsewhere */
  readonly tools?: string;
  /** adds a line to the results; only for what was checked to have done its work */
  record(line: Line): void;
  /** times `node -e 0` once and records it: how even the machine is. Call it in every round. */
  canary(): Promise<void>;
}

/** lockkeeper with these words and what it shall see of the environment. */
export function lockkeeper(
  ours: Ours,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Command {
  return { program: process.execPath, args: [ours.cli, ...args], env };
}
