import type { Context, Variables, Wiring } from "../../src/cli/context.ts";
import { main } from "../../src/cli/main.ts";
import type { Sink } from "../../src/report/sink.ts";

/** One call of the command line inside the test's own process, and what it said. */
export interface Call {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command line that builds no clients, unless `wiring` gives them. */
export async function call(
  argv: readonly string[],
  options: {
    readonly variables?: Variables;
    readonly signal?: AbortSignal;
    readonly isTerminal?: boolean;
    readonly wiring?: Partial<Wiring>;
  } = {},
): Promise<Call> {
  const [stdout, stderr] = [memory(options.isTerminal), memory(options.isTerminal)];
  const refuse = (): never => {
    throw new Error("this command line was not to build a client");
  };
  const context: Context = {
    variables: options.variables ?? {},
    stdout,
    stderr,
    signal: options.signal ?? new AbortController().signal,
    wire: () =>
      Promise.resolve({
        openTarget: refuse,
        openTargets: refuse,
        openDatabase: refuse,
        openReleases: refuse,
        openSource: refuse,
        openOtherReleases: refuse,
        chooseFormat: refuse,
        checkPolicy: refuse,
        work: refuse,
        serve: refuse,
        ...options.wiring,
      }),
  };
  const code = await main(argv, context);
  return { code, stdout: stdout.text(), stderr: stderr.text() };
}

function memory(isTerminal = false): Sink & { text(): string } {
  let all = "";
  return { isTerminal, columns: undefined, write: (text) => void (all += text), text: () => all };
}
