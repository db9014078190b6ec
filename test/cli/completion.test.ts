import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { verbNames } from "../../src/cli/verbs.ts";
import { call } from "./terminal.ts";

const execute = promisify(execFile);
const { stdout: script } = await call(["completion", "bash"]);

/** What bash, with the script loaded, offers for the last of these words. */
async function offered(...words: readonly string[]): Promise<readonly string[]> {
  const line = `source <(printf %s "$SCRIPT")
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _lockkeeper; printf '%s\\n' "\${COMPREPLY[@]}"`;
  const { stdout } = await execute("bash", ["-c", line, "bash", "lockkeeper", ...words], {
    env: { ...process.env, SCRIPT: script },
  });
  return stdout.split("\n").filter((word) => word !== "");
}

describe("completion in bash", () => {
  test("offers the verbs", async () => {
    const first = [...new Set(verbNames.map((name) => name.split(" ")[0]))];
    expect(await offered("")).toEqual([...first, "--help", "--version"]);
    expect(await offered("re")).toEqual(["release", "redo", "repair", "resume"]);
  });

  test("offers the second word of a verb of two", async () => {
    expect(await offered("release", "")).toEqual(["show", "renew", "timestamp"]);
  });

  test("offers the flags of the verb", async () => {
    expect(await offered("up", "--lock")).toEqual(["--lock-timeout"]);
    expect(await offered("release", "show", "--tr")).toEqual(["--trust"]);
    expect(await offered("keygen", "--source")).toEqual([]);
  });

  test("offers the words that a flag takes", async () => {
    expect(await offered("up", "--output", "")).toEqual(["table", "json"]);
    expect(await offered("repair", "--as", "n")).toEqual(["not-applied"]);
    expect(await offered("completion", "")).toEqual(["bash", "zsh", "fish"]);
  });

  test("offers files where a flag takes one, and folders to publish", async () => {
    expect(await offered("up", "--trust", "package.j")).toEqual(["package.json"]);
    expect(await offered("publish", "inf")).toEqual(["infra"]);
  });

  test("offers nothing for a flag that takes any word", async () => {
    expect(await offered("up", "--stream", "")).toEqual([]);
  });
});

describe("completion in other shells", () => {
  test("has every verb and flag", async () => {
    const fish = (await call(["completion", "fish"])).stdout;
    const zsh = (await call(["completion", "zsh"])).stdout;
    expect(fish).toContain("complete -c lockkeeper -n '__fish_seen_subcommand_from up' -l lock-timeout -x");
    expect(fish).toContain("-a 'bash zsh fish'");
    expect(zsh).toMatch(/^#compdef lockkeeper\n/);
    for (const name of verbNames) expect(zsh).toContain(`"${name}")`);
  });

  test("quotes what a shell would read", async () => {
    const fish = (await call(["completion", "fish"])).stdout;
    for (const line of fish.split("\n")) {
      const quotes = line.replaceAll(String.raw`\'`, "").split("'").length - 1;
      expect(quotes % 2, line).toBe(0);
    }
  });
});
