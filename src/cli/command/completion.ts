import { RunnerError } from "../../error.ts";
import type { Verb } from "../verb.ts";

const shells = ["bash", "zsh", "fish"] as const;

/** `lockkeeper completion SHELL` */
export const completion: Verb = {
  name: "completion",
  about: "Prints a completion script for a shell.",
  parameters: [{ name: "shell", text: "bash, zsh or fish", isRequired: true }],
  flags: [],
  examples: [
    { line: "source <(lockkeeper completion bash)", means: "in ~/.bashrc" },
    { line: "lockkeeper completion fish > ~/.config/fish/completions/lockkeeper.fish", means: "for fish" },
  ],
  exits: [0, 2],
  async run({ context, word, everyVerb }) {
    const shell = shells.find((known) => known === word("shell"));
    if (shell === undefined) {
      throw new RunnerError(
        "USAGE",
        `shell: expected ${shells.join(", ")}, got ${JSON.stringify(word("shell") ?? "")}`,
      );
    }
    const [{ completionScript }, { buildProgram }, verbs] = await Promise.all([
      import("../completion.ts"),
      import("../program.ts"),
      everyVerb(),
    ]);
    context.stdout.write(
      completionScript(
        shell,
        buildProgram(verbs, () => undefined),
      ),
    );
    return 0;
  },
};
