import { describe, expect, test } from "vitest";
import { meaningOf } from "../../src/cli/exit-code.ts";
import { variableOf } from "../../src/cli/flag.ts";
import type { TargetChoice } from "../../src/cli/context.ts";
import { everywhere } from "../../src/cli/flags.ts";
import { loadVerbs, verbNames } from "../../src/cli/verbs.ts";
import { RunnerError, traits } from "../../src/error.ts";
import { call } from "./terminal.ts";

const verbs = await loadVerbs();

describe("the verbs", () => {
  test("are those of the design", () => {
    expect(verbNames).toEqual(
      "create,keygen,publish,sign,release show,release renew,release timestamp,verify,root new,root next,root sign,root publish,root show,up,init,converge,golang-migrate-entrypoint,down,goto,redo,plan,status,wait,history,version,audit show,audit verify,adopt,baseline,repair,unlock,pause,resume,trust reset,serve,work,policy check,trigger,completion".split(
        ",",
      ),
    );
    expect(verbs.map((verb) => verb.name)).toEqual(verbNames);
  });

  test("are all in the help of lockkeeper alone, which is a success", async () => {
    const alone = await call([]);
    expect(alone).toMatchObject({ code: 0, stderr: "" });
    for (const name of verbNames) expect(alone.stdout).toMatch(new RegExp(`^ {2}${name} `, "m"));
    expect(await call(["--help"])).toEqual(alone);
    expect(await call(["help"])).toEqual(alone);
  });

  test.for(verbs)(
    "$name teaches itself: every flag with its default and variable, examples, exit codes",
    async (verb) => {
      const { code, stdout } = await call([...verb.name.split(" "), "--help"]);
      const text = stdout.replace(/\s+/g, " ");
      expect(code).toBe(0);
      expect(text).toContain(verb.about.replace(/\s+/g, " "));
      for (const flag of [...verb.flags, ...everywhere]) {
        expect(text).toContain(
          `--${flag.name}${flag.placeholder === undefined ? "" : ` ${flag.placeholder}`}`,
        );
        if (flag.fallback !== undefined) expect(text).toContain(`default: ${flag.fallback}`);
        if (flag.hasVariable) expect(text).toContain(`env: ${variableOf(flag)}`);
      }
      for (const parameter of verb.parameters) expect(text).toContain(parameter.text.replace(/\s+/g, " "));
      expect(verb.examples.length).toBeGreaterThan(0);
      for (const { line, means } of verb.examples) {
        expect(stdout).toContain(`  # ${means}\n  ${line}`);
        expect(line).toContain("lockkeeper ");
      }
      for (const exit of verb.exits) expect(stdout).toMatch(new RegExp(`^ +${exit}  \\w`, "m"));
      expect(Math.max(...stdout.split("\n").map((line) => line.length))).toBeLessThanOrEqual(130);
    },
  );

  test("take no two flags of one name", () => {
    for (const verb of verbs) {
      const names = [...verb.flags, ...everywhere].map((flag) => flag.name);
      expect(new Set(names).size, verb.name).toBe(names.length);
    }
  });

  test("leave what a check is given up by, and nothing else, to be typed each time", () => {
    const flags = verbs.flatMap((verb) => verb.flags);
    expect([...new Set(flags.filter((flag) => !flag.hasVariable).map((flag) => flag.name))]).toEqual([
      "unsigned",
      "allow-breaking",
      "allow-down",
      "ignore-checksums",
      "releases",
    ]);
  });
});

describe("a wrong command line", () => {
  test.for<[string, string, string]>([
    ["upp", 'there is no verb "upp"', 'did you mean "lockkeeper up"?'],
    ["frobnicate", 'there is no verb "frobnicate"', 'see "lockkeeper --help" for all verbs'],
    ["release", '"release" needs a second word', 'there is "lockkeeper release show"'],
    ["release shwo", 'there is no verb "release shwo"', 'there is "lockkeeper release show"'],
    ["force 3", 'there is no verb "force"', "repair --as applied|not-applied"],
    ["force 3", 'there is no verb "force"', "baseline VERSION"],
    ["--source x up", 'flag "--source" stands before the verb', "the verb comes first"],
    ["up --lock-timout 5s", 'unknown option "--lock-timout"', "did you mean --lock-timeout?"],
    ["up --lock-timout=hunter2", 'unknown option "--lock-timout"', "did you mean --lock-timeout?"],
    ["up --xyzzy", 'unknown option "--xyzzy"', 'see "lockkeeper up --help"'],
    ["up -n 3", 'unknown option "-n"', ""],
    ["up --wait", "argument missing", ""],
    ["up 1 2", "too many arguments", ""],
    ["up 0", "n: expected a whole number from 1", ""],
    ["up -1", "n: expected a whole number from 1", ""],
    ["up 1.5", "n: expected a whole number from 1", ""],
    ["goto", 'missing required argument "version"', ""],
    ["goto latest", "version: expected digits", ""],
    ["up --wait ten", '--wait: expected a duration such as 10m, 5s or 0, got "ten"', ""],
    ["up --wait 5", "--wait: expected a duration", ""],
    ["up --output xml", '--output: expected table or json, got "xml"', ""],
    ["history --last 0", "--last: expected a whole number from 1", ""],
    ["plan --to 3 --steps 1", "--to and --steps do not go together", ""],
    ["repair --reason x", "--as <applied|not-applied> (or LOCKKEEPER_AS) is missing", ""],
    ["repair --as maybe --reason x", "--as: expected applied or not-applied", ""],
    ["baseline 3", "--reason <text> (or LOCKKEEPER_REASON) is missing", ""],
    ["unlock --reason x", "--run <id> (or LOCKKEEPER_RUN) is missing", ""],
    ["publish a", 'missing required argument "destination"', ""],
    ["publish a b --key k", "--stream <name> (or LOCKKEEPER_STREAM) is missing", ""],
    ["publish a b --stream a/b --key k", "--stream: expected a name of letters, digits", ""],
    ["publish a b --stream s --key k --environment -x", "--environment: expected a name", 'got "-x"'],
    ["up --stream=", "--stream: expected a name", ""],
    ["publish a b --stream s --expires soon", "--expires: expected a number of days", ""],
    ["completion tcsh", "shell: expected bash, zsh, fish", ""],
    ["create ../evil", "cannot be part of a file name", ""],
    ["create a --seq --timestamp", "--seq and --timestamp do not go together", ""],
    ["create a --ext xml", "--ext: expected sql or json", ""],
    ["trigger --url x --token-file t --target a", "--url: expected a URL such as", ""],
    [
      "trigger --url https://u:hunter2@h --token-file t --target a",
      "--url: user, password, query and fragment",
      "",
    ],
    ["keygen", "--out <file> (or LOCKKEEPER_OUT) is missing", ""],
  ])("%s exits 2 and says %s %s", async ([line, message, hint]) => {
    const { code, stdout, stderr } = await call(line.split(" "));
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toContain(message);
    expect(stderr).toContain(hint);
    expect(stderr).toContain("code:     USAGE");
    expect(stderr).not.toMatch(/hunter2|\n +at /);
  });

  test("is one JSON document on stdout where that was asked for, by flag or variable", async () => {
    for (const made of [
      await call(["up", "--wait", "ten", "--output", "json"]),
      await call(["up", "--output=json", "--wait", "ten"]),
      await call(["up", "--wait", "ten"], { variables: { LOCKKEEPER_OUTPUT: "json" } }),
    ]) {
      expect(made).toMatchObject({ code: 2, stderr: "" });
      expect(JSON.parse(made.stdout)).toEqual({
        error: {
          code: "USAGE",
          message: '--wait: expected a duration such as 10m, 5s or 0, got "ten"',
          hint: null,
          retryable: false,
          exitCode: 2,
          fields: {},
        },
      });
    }
  });
});

describe("a flag", () => {
  /** What `status` would open with this command line. */
  async function choiceOf(
    argv: readonly string[],
    variables: Readonly<Record<string, string>> = {},
  ): Promise<TargetChoice> {
    const made: TargetChoice[] = [];
    await call(["status", ...argv], {
      variables,
      wiring: {
        openTarget(choice) {
          made.push(choice);
          throw new RunnerError("USAGE", "enough seen");
        },
      },
    });
    if (made[0] === undefined) throw new Error("nothing was opened");
    return made[0];
  }

  test("comes from the command line, else from its variable, else it is not given", async () => {
    expect((await choiceOf(["--source", "a"], { LOCKKEEPER_SOURCE: "b" })).source).toBe("a");
    expect((await choiceOf([], { LOCKKEEPER_SOURCE: "b" })).source).toBe("b");
    expect((await choiceOf([])).source).toBeUndefined();
    expect((await choiceOf([], { LOCKKEEPER_SOURCE: "" })).source).toBeUndefined();
  });

  test("that repeats takes all of its values, or those of its variable, never both", async () => {
    expect((await choiceOf(["--trust", "a", "--trust", "b"], { LOCKKEEPER_TRUST: "c" })).trust).toEqual([
      "a",
      "b",
    ]);
    expect((await choiceOf([], { LOCKKEEPER_TRUST: "c,d" })).trust).toEqual(["c", "d"]);
  });

  test("without a value is switched by words in its variable", async () => {
    expect((await choiceOf([], { LOCKKEEPER_ALLOW_LATE: "true" })).allowsLate).toBe(true);
    expect((await choiceOf([], { LOCKKEEPER_ALLOW_LATE: "0" })).allowsLate).toBe(false);
  });

  test("named unsigned has no variable", async () => {
    expect((await choiceOf([], { LOCKKEEPER_UNSIGNED: "true" })).isUnsigned).toBe(false);
    expect((await choiceOf(["--unsigned"])).isUnsigned).toBe(true);
  });

  test("that is wrong in its variable is blamed on the variable", async () => {
    const { code, stderr } = await call(["up"], { variables: { LOCKKEEPER_WAIT: "ten" } });
    expect(code).toBe(2);
    expect(stderr).toContain('LOCKKEEPER_WAIT: expected a duration such as 10m, 5s or 0, got "ten"');
    expect((await call(["status"], { variables: { LOCKKEEPER_ALLOW_LATE: "perhaps" } })).stderr).toContain(
      "LOCKKEEPER_ALLOW_LATE: expected true or false",
    );
  });
});

describe("exit codes", () => {
  test("all have a meaning that help can tell", () => {
    const given = [...Object.values(traits).map(({ exit }) => exit), ...verbs.flatMap((verb) => verb.exits)];
    for (const code of new Set(given)) expect(meaningOf(code), String(code)).not.toBe("");
  });
});

describe("an error", () => {
  const failing = (error: unknown) => ({
    wiring: {
      openTarget(): never {
        throw error;
      },
    },
  });

  test("says what, where, what to do next and its code", async () => {
    const { code, stderr } = await call(
      ["status"],
      failing(
        new RunnerError("MIGRATION_FAILED", "it broke", {
          hint: "mend it",
          fields: { migration: "1_a.up.sql", line: 3, column: 7, sqlstate: "42703" },
        }),
      ),
    );
    expect(code).toBe(21);
    expect(stderr).toBe(
      "error: it broke\n  where:    1_a.up.sql:3:7\n  sqlstate: 42703\n  next:     mend it\n  code:     MIGRATION_FAILED\n",
    );
  });

  test("has colours only on a terminal, and never with NO_COLOR or --no-color", async () => {
    const broken = failing(new RunnerError("CONFIG", "it broke"));
    const escape = "\u001b[31m";
    expect((await call(["status"], { ...broken, isTerminal: true })).stderr).toContain(escape);
    expect((await call(["status"], broken)).stderr).not.toContain(escape);
    expect((await call(["status", "--no-color"], { ...broken, isTerminal: true })).stderr).not.toContain(
      escape,
    );
    expect(
      (await call(["status"], { ...broken, isTerminal: true, variables: { NO_COLOR: "1" } })).stderr,
    ).not.toContain(escape);
    expect(
      (await call(["status"], { ...broken, isTerminal: true, variables: { NO_COLOR: "" } })).stderr,
    ).toContain(escape);
  });

  test("never shows a password, in words, as JSON or among its causes", async () => {
    const secret = "postgres://u:hunter2@h/d";
    const error = new RunnerError("DATABASE_UNAVAILABLE", `no answer from ${secret}`, {
      hint: `look at ${secret}`,
      fields: { url: secret },
      cause: new Error(`connect ${secret}`),
    });
    for (const argv of [
      ["status", "--verbose"],
      ["status", "--verbose", "--output", "json"],
    ]) {
      const { code, stdout, stderr } = await call(argv, failing(error));
      expect(code).toBe(31);
      expect(`${stdout}${stderr}`).toContain("postgres://u:***@h/d");
      expect(`${stdout}${stderr}`).not.toContain("hunter2");
    }
  });

  test("that nobody named is a defect: exit 1, and its stack only with --verbose", async () => {
    const defect = new TypeError("x is not a function");
    const brief = await call(["status"], failing(defect));
    const full = await call(["status", "--verbose"], failing(defect));
    expect([brief.code, full.code]).toEqual([1, 1]);
    expect(brief.stderr).toContain("--verbose");
    expect(brief.stderr).not.toContain("x is not a function");
    expect(full.stderr).toMatch(/x is not a function\n +at /);
  });
});
