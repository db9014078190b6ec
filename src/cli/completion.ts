import type { Argument, Command, Option } from "commander";

/** Shells that can be helped. */
export type Shell = "bash" | "zsh" | "fish";

/** One verb as completion sees it. */
interface Entry {
  /** `release show` */
  readonly path: string;
  readonly about: string;
  readonly options: readonly Option[];
  readonly parameters: readonly Argument[];
}

/** A completion script made from commander's own tree, so that it knows exactly the flags that are taken. */
export function completionScript(shell: Shell, program: Command): string {
  const entries = entriesOf(program, "");
  switch (shell) {
    case "bash":
      return bashScript(program, entries);
    case "zsh":
      return `#compdef lockkeeper\nautoload -U +X bashcompinit && bashcompinit\n${bashScript(program, entries)}`;
    case "fish":
      return fishScript(program, entries);
  }
}

function entriesOf(command: Command, path: string): readonly Entry[] {
  return command.commands.flatMap((child) => {
    const childPath = path === "" ? child.name() : `${path} ${child.name()}`;
    if (child.commands.length > 0) return entriesOf(child, childPath);
    return [
      {
        path: childPath,
        about: firstSentence(child.description()),
        options: child.options,
        parameters: child.registeredArguments,
      },
    ];
  });
}

/** Words of `<a|b>`; empty where any word may stand. */
function choicesOf(flags: string): readonly string[] {
  const inside = /<([a-z0-9-]+(?:\|[a-z0-9-]+)+)>/.exec(flags)?.[1];
  return inside?.split("|") ?? [];
}

function kindOf(option: Option): "switch" | "file" | "folder" | "choice" | "text" {
  if (!option.required) return "switch";
  if (choicesOf(option.flags).length > 0) return "choice";
  if (option.flags.endsWith("<file>")) return "file";
  // a source can be a folder
  if (option.flags.endsWith("<folder>") || option.long === "--source") return "folder";
  return "text";
}

function wordsOf(parameter: Argument): "shells" | "folder" | "text" {
  if (parameter.name() === "shell") return "shells";
  return parameter.name() === "folder" || parameter.name() === "destination" ? "folder" : "text";
}

function bashScript(program: Command, entries: readonly Entry[]): string {
  const top = program.commands.map((command) => command.name());
  const groups = program.commands.filter((command) => command.commands.length > 0);
  const cases = entries.map((entry) => {
    const values = entry.options.flatMap((option) => {
      const act = bashValues(option);
      return act === undefined ? [] : [`        ${option.long ?? ""}) ${act}; return ;;`];
    });
    const flags = [...entry.options.map((option) => option.long ?? ""), "--help"].join(" ");
    const words = entry.parameters.map(wordsOf);
    const other = words.includes("shells")
      ? 'COMPREPLY=($(compgen -W "bash zsh fish" -- "$cur"))'
      : words.includes("folder")
        ? "_lockkeeper_files -d"
        : "COMPREPLY=()";
    return `    "${entry.path}")
      case "$prev" in
${values.join("\n")}
      esac
      case "$cur" in
        -*) COMPREPLY=($(compgen -W "${flags}" -- "$cur")) ;;
        *) ${other} ;;
      esac ;;`;
  });
  const inner = groups.map(
    (group) =>
      `    "${group.name()}") COMPREPLY=($(compgen -W "${group.commands.map((command) => command.name()).join(" ")}" -- "$cur")) ;;`,
  );
  const paths = [...groups.map((group) => group.name()), ...entries.map((entry) => entry.path)];
  return `_lockkeeper_files() {
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen "$1" -- "$cur"))
}
_lockkeeper() {
  local cur="\${COMP_WORDS[COMP_CWORD]}" prev="\${COMP_WORDS[COMP_CWORD-1]}" verb="" next i
  for ((i = 1; i < COMP_CWORD; i++)); do
    next="\${verb:+$verb }\${COMP_WORDS[i]}"
    case "$next" in
      ${paths.map((path) => `"${path}"`).join("|")}) verb="$next" ;;
      *) break ;;
    esac
  done
  case "$verb" in
    "") COMPREPLY=($(compgen -W "${[...top, "--help", "--version"].join(" ")}" -- "$cur")) ;;
${[...inner, ...cases].join("\n")}
  esac
}
complete -F _lockkeeper lockkeeper
`;
}

function bashValues(option: Option): string | undefined {
  switch (kindOf(option)) {
    case "switch":
      return undefined;
    case "choice":
      return `COMPREPLY=($(compgen -W "${choicesOf(option.flags).join(" ")}" -- "$cur"))`;
    case "file":
      return "_lockkeeper_files -f";
    case "folder":
      return "_lockkeeper_files -d";
    case "text":
      return "COMPREPLY=()";
  }
}

function fishScript(program: Command, entries: readonly Entry[]): string {
  const quote = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines = ["complete -c lockkeeper -f"];
  for (const command of program.commands) {
    const about = command.commands.length > 0 ? "" : ` -d ${quote(firstSentence(command.description()))}`;
    lines.push(`complete -c lockkeeper -n __fish_use_subcommand -a ${command.name()}${about}`);
    for (const child of command.commands) {
      const seen = command.commands.map((known) => known.name()).join(" ");
      lines.push(
        `complete -c lockkeeper -n '__fish_seen_subcommand_from ${command.name()}; and not __fish_seen_subcommand_from ${seen}' -a ${child.name()} -d ${quote(firstSentence(child.description()))}`,
      );
    }
  }
  for (const entry of entries) {
    const seen = entry.path
      .split(" ")
      .map((word) => `__fish_seen_subcommand_from ${word}`)
      .join("; and ");
    if (entry.parameters.some((parameter) => wordsOf(parameter) === "shells")) {
      lines.push(`complete -c lockkeeper -n '${seen}' -a 'bash zsh fish'`);
    }
    if (entry.parameters.some((parameter) => wordsOf(parameter) === "folder")) {
      lines.push(`complete -c lockkeeper -n '${seen}' -a '(__fish_complete_directories)'`);
    }
    for (const option of entry.options) {
      const name = (option.long ?? "").slice(2);
      lines.push(
        `complete -c lockkeeper -n '${seen}' -l ${name}${fishValues(option)} -d ${quote(firstSentence(option.description))}`,
      );
    }
  }
  return `${lines.join("\n")}\n`;
}

function fishValues(option: Option): string {
  switch (kindOf(option)) {
    case "switch":
      return "";
    case "choice":
      return ` -x -a '${choicesOf(option.flags).join(" ")}'`;
    case "file":
    case "folder":
      return " -r -F";
    case "text":
      return " -x";
  }
}

function firstSentence(text: string): string {
  return text.split(/[.;:(]\s|\s\(/)[0]?.trim() ?? text;
}
