import { Argument, Command, Option } from "commander";
import { RunnerError } from "../error.ts";
import type { Variables } from "./context.ts";
import { meaningOf } from "./exit-code.ts";
import { variableOf } from "./flag.ts";
import type { Flag } from "./flag.ts";
import { everywhere } from "./flags.ts";
import { nearest } from "./nearest.ts";
import type { Verb } from "./verb.ts";

/** What a command line asked for. */
export type Request =
  | { readonly kind: "text"; readonly text: string }
  | {
      readonly kind: "verb";
      readonly verb: Verb;
      readonly words: ReadonlyMap<string, string>;
      /** what was written for each flag, by name */
      readonly texts: ReadonlyMap<string, FlagText>;
    };

/** What was written for one flag, and where: `--wait` or `LOCKKEEPER_WAIT`. */
export interface FlagText {
  readonly texts: readonly string[];
  readonly origin: string;
}

/**
 * A flag's value from what was written.
 *
 * @throws RunnerError `USAGE` for a text that does not fit
 */
export function valueOf<T>(flag: Flag<T>, texts: ReadonlyMap<string, FlagText>): T {
  const written = texts.get(flag.name);
  return flag.from(written?.texts ?? [], written?.origin ?? `--${flag.name}`);
}

/** Commander's tree of these verbs; what completion scripts are made from. */
export function buildProgram(
  verbs: readonly Verb[],
  onVerb: (verb: Verb, command: Command) => void,
): Command {
  const program = new Command("lockkeeper").helpCommand(false).exitOverride();
  for (const verb of verbs) {
    const names = verb.name.split(" ");
    let parent = program;
    for (const name of names.slice(0, -1)) {
      parent =
        parent.commands.find((command) => command.name() === name) ?? parent.command(name).exitOverride();
    }
    const command = parent.command(names.at(-1) ?? verb.name).exitOverride();
    describeVerb(command, verb);
    command.action(() => onVerb(verb, command));
  }
  return program;
}

/**
 * What the words after the verb's name mean.
 *
 * @throws RunnerError `USAGE` for an unknown flag (with the nearest one), a missing or surplus word, a value that does not fit
 */
export function parseVerb(verb: Verb, argv: readonly string[], variables: Variables): Request {
  let request: Request | undefined;
  let help = "";
  const program = buildProgram([verb], (_, command) => {
    request = { kind: "verb", verb, words: wordsOf(verb, command), texts: textsOf(verb, command, variables) };
  });
  collectOutput(program, (text) => (help += text));
  try {
    program.parse([...argv], { from: "user" });
  } catch (thrown) {
    if (isCommanderEnd(thrown, "commander.helpDisplayed") || isCommanderEnd(thrown, "commander.help")) {
      return { kind: "text", text: help };
    }
    throw usageError(verb, thrown);
  }
  if (request === undefined) throw new RunnerError("USAGE", `"${argv.join(" ")}" names no verb`);
  checkFlags(request);
  return request;
}

function describeVerb(command: Command, verb: Verb): void {
  command.description(verb.about);
  for (const parameter of verb.parameters) {
    const shown = parameter.isRequired ? `<${parameter.name}>` : `[${parameter.name}]`;
    command.addArgument(new Argument(shown, parameter.text));
  }
  for (const flag of [...verb.flags, ...everywhere]) command.addOption(optionOf(flag));
  command.helpOption("-h, --help", "this text");
  command.configureHelp({ helpWidth: 110, sortOptions: false });
  command.addHelpText("after", () => afterHelp(verb));
}

function optionOf(flag: Flag<unknown>): Option {
  const notes = [
    ...(flag.fallback === undefined ? [] : [`default: ${flag.fallback}`]),
    ...(flag.hasVariable ? [`env: ${variableOf(flag)}`] : ["no variable"]),
  ];
  const option = new Option(
    `--${flag.name}${flag.placeholder === undefined ? "" : ` ${flag.placeholder}`}`,
    `${flag.text} (${notes.join("; ")})`,
  );
  if (flag.isRepeatable) {
    option.argParser((value: string, previous: readonly string[] | undefined) => [
      ...(previous ?? []),
      value,
    ]);
  }
  return option;
}

function afterHelp(verb: Verb): string {
  const examples = verb.examples.map(({ line, means }) => `  # ${means}\n  ${line}`);
  const exits = verb.exits.map((code) => `  ${String(code).padStart(3)}  ${meaningOf(code)}`);
  return `\nExamples:\n${examples.join("\n\n")}\n\nExit codes:\n${exits.join("\n")}\n`;
}

function wordsOf(verb: Verb, command: Command): Map<string, string> {
  const words = new Map<string, string>();
  for (const [index, parameter] of verb.parameters.entries()) {
    const word = command.args[index];
    if (word !== undefined) words.set(parameter.name, word);
  }
  return words;
}

/** The command line wins over the variable, whole: a repeated flag is not mixed with its variable. */
function textsOf(verb: Verb, command: Command, variables: Variables): Map<string, FlagText> {
  const texts = new Map<string, FlagText>();
  for (const flag of [...verb.flags, ...everywhere]) {
    const option = command.options.find((known) => known.long === `--${flag.name}`);
    const key = option?.attributeName();
    const isGiven = key !== undefined && command.getOptionValueSource(key) === "cli";
    const variable = flag.hasVariable ? variables[variableOf(flag)] : undefined;
    if (isGiven) {
      const value: unknown = command.getOptionValue(key);
      const written = Array.isArray(value) ? value.map(String) : [String(value)];
      texts.set(flag.name, {
        texts: flag.placeholder === undefined ? ["true"] : written,
        origin: `--${flag.name}`,
      });
    } else if (variable !== undefined && variable !== "") {
      texts.set(flag.name, {
        texts: flag.isRepeatable ? variable.split(",") : [variable],
        origin: variableOf(flag),
      });
    }
  }
  return texts;
}

/** Every flag is read once before anything is done, so that a wrong one stops the verb early. */
function checkFlags(request: Request): void {
  if (request.kind !== "verb") return;
  for (const flag of [...request.verb.flags, ...everywhere]) valueOf(flag, request.texts);
}

function collectOutput(command: Command, write: (text: string) => void): void {
  command.configureOutput({ writeOut: write, writeErr: () => undefined, outputError: () => undefined });
  for (const child of command.commands) collectOutput(child, write);
}

function isCommanderEnd(thrown: unknown, code: string): thrown is Error & { code: string } {
  return thrown instanceof Error && "code" in thrown && thrown.code === code;
}

/** Commander's words, without its prefix and its own guess: ours knows the flags of this verb only. */
function usageError(verb: Verb, thrown: unknown): RunnerError {
  if (!(thrown instanceof Error)) return new RunnerError("USAGE", "the command line cannot be read");
  const [first = ""] = thrown.message.split("\n");
  // a value behind = may be a secret that somebody gave to a flag with a slip in its name
  const message = first
    .replace(/^error: /, "")
    .replace(/(unknown option '[^'=]*)=[^]*$/, "$1'")
    .replaceAll("'", '"');
  const unknown = /unknown option "(--?[^"=]*)/.exec(message)?.[1];
  const known = [...verb.flags, ...everywhere].map((flag) => `--${flag.name}`);
  const meant = unknown === undefined ? undefined : nearest(unknown, [...known, "--help"]);
  const hint = meant === undefined ? `see "lockkeeper ${verb.name} --help"` : `did you mean ${meant}?`;
  return new RunnerError("USAGE", message, { hint });
}
