import { RunnerError, toRunnerError } from "../error.ts";
import type { Context } from "./context.ts";
import { exitOf } from "./exit-code.ts";
import { showFailure } from "./failure.ts";
import { variableOf } from "./flag.ts";
import { noColor, output as outputFlag, verbose } from "./flags.ts";
import { nearest } from "./nearest.ts";
import { makeOutput } from "./output.ts";
import type { Output } from "./output.ts";
import { parseVerb, valueOf } from "./program.ts";
import type { Request } from "./program.ts";
import { terminationLog, writeEnding } from "./termination.ts";
import type { Ending } from "./termination.ts";
import type { Invocation } from "./verb.ts";
import { findVerb, loadVerbs, mainHelp, verbNames } from "./verbs.ts";

/**
 * Runs one command line and gives its exit code. Never throws and never exits the process.
 *
 * @param argv - the words after `lockkeeper`
 */
export async function main(argv: readonly string[], context: Context): Promise<number> {
  let output = guessOutput(argv, context);
  let file: string | undefined;
  try {
    file = await guessTerminationLog(argv, context);
    const request = await readCommandLine(argv, context);
    if (request.kind === "text") {
      context.stdout.write(request.text);
      return 0;
    }
    const get: Invocation["get"] = (flag) => valueOf(flag, request.texts);
    output = makeOutput(context.stdout, context.stderr, {
      isJson: get(outputFlag) === "json",
      isVerbose: get(verbose),
      hasColor: !get(noColor) && !isSet(context.variables["NO_COLOR"]),
    });
    context.signal.addEventListener(
      "abort",
      () => {
        const what = request.verb.whenInterrupted ?? "stopping at the next safe point";
        output.note(`${what}; a second signal stops at once`);
      },
      { once: true },
    );
    let ending: Ending | undefined;
    const code = await request.verb.run({
      context,
      output,
      signal: context.signal,
      get,
      everyVerb: loadVerbs,
      ended: (how) => {
        ending = how;
      },
      word: (name) => request.words.get(name),
    });
    tell(file, ending ?? { kind: "done", words: `exit=${code}` }, output);
    return code;
  } catch (thrown) {
    const error = nameFailure(thrown, context.signal);
    showFailure(error, output);
    tell(file, { kind: "failed", error, exit: exitOf(error) }, output);
    return exitOf(error);
  }
}

function tell(file: string | undefined, ending: Ending, output: Output): void {
  const problem = file === undefined ? undefined : writeEnding(file, ending);
  if (problem !== undefined)
    output.note(`warning: --termination-log: ${file} cannot be written (${problem})`);
}

/**
 * Shows an error that nobody caught, as any other one: without the stack and the secrets that Node's own last words may
 * hold. Gives the exit code; the process is not to go on.
 */
export function lastWords(thrown: unknown, argv: readonly string[], context: Context): number {
  const error = toRunnerError(thrown);
  showFailure(error, guessOutput(argv, context));
  return exitOf(error);
}

/** Says what went wrong beside what was asked for, in the form that was asked for. */
export function warn(
  message: string,
  argv: readonly string[],
  context: Pick<Context, "stdout" | "stderr" | "variables">,
): void {
  const { isJson, stderr, note } = guessOutput(argv, context);
  const line = { at: new Date().toISOString(), kind: "warning", message };
  if (isJson) stderr.write(`${JSON.stringify(line)}\n`);
  else note(`warning: ${message}`);
}

/** After an interrupt, whatever was thrown by the call that it cut off is no defect. */
function nameFailure(thrown: unknown, signal: AbortSignal): RunnerError {
  if (thrown instanceof RunnerError || !signal.aborted) return toRunnerError(thrown);
  if (signal.reason instanceof RunnerError) return signal.reason;
  return new RunnerError("CANCELED", "stopped before the end", {
    hint: "run the same command again",
    cause: thrown,
  });
}

async function readCommandLine(argv: readonly string[], context: Context): Promise<Request> {
  const [first, ...rest] = argv;
  if (
    first === undefined ||
    first === "--help" ||
    first === "-h" ||
    (first === "help" && rest.length === 0)
  ) {
    return { kind: "text", text: mainHelp() };
  }
  if (first === "--version" || first === "-V") {
    const { version } = await import("../build.ts");
    return { kind: "text", text: `lockkeeper ${version()}\n` };
  }
  const words = first === "help" ? [...rest, "--help"] : argv;
  const verb = await findVerb(words);
  if (verb !== undefined) return parseVerb(verb, words, context.variables);
  throw unknownVerb(words);
}

function unknownVerb(words: readonly string[]): RunnerError {
  const [first = "", second] = words;
  if (first === "force") {
    return new RunnerError("USAGE", `there is no verb "force"`, {
      hint:
        'to say that a migration which needs attention did or did not take effect: "lockkeeper repair --as applied|not-applied"; ' +
        'to say that everything up to a version is already there: "lockkeeper baseline VERSION"',
    });
  }
  if (first.startsWith("-")) {
    return new RunnerError("USAGE", `flag "${first.split("=")[0] ?? ""}" stands before the verb`, {
      hint: 'the verb comes first: "lockkeeper up --source …"',
    });
  }
  const isGroup = verbNames.some((name) => name.startsWith(`${first} `));
  if (isGroup) {
    const members = verbNames
      .filter((name) => name.startsWith(`${first} `))
      .map((name) => `"lockkeeper ${name}"`);
    const what =
      second === undefined ? `"${first}" needs a second word` : `there is no verb "${first} ${second}"`;
    return new RunnerError("USAGE", what, { hint: `there is ${members.join(", ")}` });
  }
  const meant = nearest(first, verbNames);
  const hint =
    meant === undefined ? 'see "lockkeeper --help" for all verbs' : `did you mean "lockkeeper ${meant}"?`;
  return new RunnerError("USAGE", `there is no verb "${first}"`, { hint });
}

/** Before the command line is parsed, and where it cannot be, errors still have to go out in the form that was asked for. */
function guessOutput(
  argv: readonly string[],
  context: Pick<Context, "stdout" | "stderr" | "variables">,
): Output {
  const after = argv[argv.indexOf("--output") + 1];
  const isJson =
    argv.includes("--output=json") ||
    (argv.includes("--output") ? after === "json" : context.variables["LOCKKEEPER_OUTPUT"] === "json");
  return makeOutput(context.stdout, context.stderr, {
    isJson,
    isVerbose: argv.includes("--verbose"),
    hasColor: !argv.includes("--no-color") && !isSet(context.variables["NO_COLOR"]),
  });
}

/** A command line that cannot be parsed is what a container's message is wanted for most. */
async function guessTerminationLog(argv: readonly string[], context: Context): Promise<string | undefined> {
  const verb = await findVerb(argv);
  if (verb?.flags.includes(terminationLog) !== true || argv.includes("--help") || argv.includes("-h")) return;
  const name = `--${terminationLog.name}`;
  const at = argv.findLastIndex((word) => word === name || word.startsWith(`${name}=`));
  const written =
    at < 0 ? undefined : argv[at]?.includes("=") ? argv[at].slice(name.length + 1) : argv[at + 1];
  const variable = context.variables[variableOf(terminationLog)];
  const texts = [written, variable].filter(isSet).slice(0, 1);
  return terminationLog.from(texts, name);
}

function isSet(variable: string | undefined): variable is string {
  return variable !== undefined && variable !== "";
}
