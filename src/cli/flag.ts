import { RunnerError } from "../error.ts";
import { parseDuration } from "../migration/duration.ts";
import { parseArgv } from "./argv.ts";

/** One `--flag` of a verb: what its help says and how its text becomes a value. */
export interface Flag<T> {
  /** `lock-timeout`, without the dashes */
  readonly name: string;
  /** `<duration>`; absent for a switch */
  readonly placeholder?: string;
  readonly text: string;
  /** the default, as help prints it */
  readonly fallback?: string;
  readonly isRepeatable: boolean;
  readonly choices?: readonly string[];
  /** whether `LOCKKEEPER_<NAME>` is read too; false only where a person must type it each time */
  readonly hasVariable: boolean;
  /**
   * The value of what was written, in order; of nothing, the default.
   *
   * @param origin - who is to blame for the texts: `--wait` or `LOCKKEEPER_WAIT`
   * @throws RunnerError `USAGE` naming the origin
   */
  from(texts: readonly string[], origin: string): T;
}

/** The environment variable of a flag: `--lock-timeout` is `LOCKKEEPER_LOCK_TIMEOUT`. */
export function variableOf(flag: Flag<unknown>): string {
  return `LOCKKEEPER_${flag.name.toUpperCase().replaceAll("-", "_")}`;
}

interface Wording {
  readonly placeholder: string;
  readonly text: string;
}

/** A flag that takes one text. */
export function textFlag(name: string, wording: Wording & { readonly fallback: string }): Flag<string>;
export function textFlag(
  name: string,
  wording: Wording & { readonly explained?: string },
): Flag<string | undefined>;
export function textFlag(
  name: string,
  wording: Wording & { readonly fallback?: string; readonly explained?: string },
): Flag<string | undefined> {
  const shown = wording.fallback ?? wording.explained;
  return {
    name,
    placeholder: wording.placeholder,
    text: wording.text,
    ...(shown === undefined ? {} : { fallback: shown }),
    isRepeatable: false,
    hasVariable: true,
    from(texts, origin) {
      const last = texts.at(-1);
      if (last === "") throw wrong(origin, "is empty");
      return last ?? wording.fallback;
    },
  };
}

/** A flag that can be given several times; its variable holds the values with commas between. */
export function listFlag(
  name: string,
  wording: Wording & { readonly fallback?: readonly string[] },
): Flag<readonly string[]> {
  return {
    name,
    placeholder: wording.placeholder,
    text: wording.text,
    ...(wording.fallback === undefined ? {} : { fallback: wording.fallback.join(",") }),
    isRepeatable: true,
    hasVariable: true,
    from(texts, origin) {
      if (texts.includes("")) throw wrong(origin, "is empty");
      return texts.length > 0 ? texts : (wording.fallback ?? []);
    },
  };
}

/** A flag whose value is `name=value`, and that can be repeated. */
export function recordFlag(name: string, wording: Wording): Flag<Readonly<Record<string, string>>> {
  return {
    name,
    placeholder: wording.placeholder,
    text: wording.text,
    isRepeatable: true,
    hasVariable: true,
    from(texts, origin) {
      const pairs = texts.map((text) => /^([^=]+)=(.*)$/s.exec(text));
      if (pairs.includes(null)) throw wrong(origin, "is not name=value");
      return Object.fromEntries(pairs.map((pair) => [pair?.[1] ?? "", pair?.[2] ?? ""]));
    },
  };
}

/** A flag without a value. */
export function switchFlag(
  name: string,
  wording: { readonly text: string; readonly hasVariable?: boolean },
): Flag<boolean> {
  return {
    name,
    text: wording.text,
    isRepeatable: false,
    hasVariable: wording.hasVariable ?? true,
    from(texts, origin) {
      const last = texts.at(-1)?.toLowerCase() ?? "";
      if (["", "0", "false", "no", "off"].includes(last)) return false;
      if (["1", "true", "yes", "on"].includes(last)) return true;
      throw wrong(origin, `expected true or false, got ${JSON.stringify(last)}`);
    },
  };
}

/** A length of time in milliseconds; `undefined` when it was not given, so that a configuration file can decide. */
export function durationFlag(
  name: string,
  wording: { readonly text: string; readonly fallback: string },
): Flag<number | undefined> {
  return {
    name,
    placeholder: "<duration>",
    text: wording.text,
    fallback: wording.fallback,
    isRepeatable: false,
    hasVariable: true,
    from(texts, origin) {
      const last = texts.at(-1);
      if (last === undefined) return undefined;
      const ms = parseDuration(last);
      if (ms === undefined)
        throw wrong(origin, `expected a duration such as 10m, 5s or 0, got ${JSON.stringify(last)}`);
      return ms;
    },
  };
}

/** A program with its arguments. */
export function argvFlag(
  name: string,
  wording: { readonly text: string },
): Flag<readonly [string, ...string[]] | undefined> {
  return {
    name,
    placeholder: "<command>",
    text: wording.text,
    isRepeatable: false,
    hasVariable: true,
    from(texts, origin) {
      const last = texts.at(-1);
      if (last === undefined) return undefined;
      const argv = parseArgv(last);
      if (argv !== undefined) return argv;
      throw new RunnerError("USAGE", `${origin}: expected words without quotes, or a JSON list of words`, {
        hint: `no shell reads it; name one if you need it: '["sh", "-c", "pg_dump … > file"]'`,
      });
    },
  };
}

/** A whole number from `least` on. */
export function countFlag(
  name: string,
  wording: Wording & { readonly fallback?: number; readonly least: number },
): Flag<number | undefined> {
  return {
    name,
    placeholder: wording.placeholder,
    text: wording.text,
    ...(wording.fallback === undefined ? {} : { fallback: String(wording.fallback) }),
    isRepeatable: false,
    hasVariable: true,
    from(texts, origin) {
      const last = texts.at(-1);
      if (last === undefined) return wording.fallback;
      const count = parseCount(last, wording.least);
      if (count === undefined)
        throw wrong(origin, `expected a whole number from ${wording.least}, got ${JSON.stringify(last)}`);
      return count;
    },
  };
}

/** One of a few words. */
export function choiceFlag<const T extends string>(
  name: string,
  wording: { readonly text: string; readonly choices: readonly T[]; readonly fallback: T },
): Flag<T>;
export function choiceFlag<const T extends string>(
  name: string,
  wording: { readonly text: string; readonly choices: readonly T[] },
): Flag<T | undefined>;
export function choiceFlag<const T extends string>(
  name: string,
  wording: { readonly text: string; readonly choices: readonly T[]; readonly fallback?: T },
): Flag<T | undefined> {
  return {
    name,
    placeholder: `<${wording.choices.join("|")}>`,
    text: wording.text,
    ...(wording.fallback === undefined ? {} : { fallback: wording.fallback }),
    isRepeatable: false,
    choices: wording.choices,
    hasVariable: true,
    from(texts, origin) {
      const last = texts.at(-1);
      if (last === undefined) return wording.fallback;
      const choice = wording.choices.find((word) => word === last);
      if (choice === undefined)
        throw wrong(origin, `expected ${wording.choices.join(" or ")}, got ${JSON.stringify(last)}`);
      return choice;
    },
  };
}

/** The same flag, one that has to be given: its absence is a usage error. */
export function required<T>(flag: Flag<T | undefined>): Flag<T> {
  return {
    ...flag,
    text: `${flag.text}; required`,
    from(texts, origin) {
      const value = flag.from(texts, origin);
      if (value === undefined) {
        const variable = flag.hasVariable ? ` (or ${variableOf(flag)})` : "";
        throw new RunnerError(
          "USAGE",
          `--${flag.name} ${flag.placeholder ?? ""}${variable} is missing`.replace("  ", " "),
        );
      }
      return value;
    },
  };
}

/** Names of streams and environments: they stand in paths, statements and run ids, and are compared byte by byte. */
const nameShape = /^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/;

/** The same flag, one that takes names only: of streams or environments. */
export function named<T extends string | undefined | readonly string[]>(flag: Flag<T>): Flag<T> {
  return {
    ...flag,
    from(texts, origin) {
      const wrongName = texts.find((text) => !nameShape.test(text));
      if (wrongName === undefined) return flag.from(texts, origin);
      const rule = "expected a name of letters, digits, . _ - with a letter or digit first";
      throw wrong(origin, `${rule}, got ${JSON.stringify(wrongName.slice(0, 80))}`);
    },
  };
}

/** A whole number written in digits, from `least` to the largest exact one. */
export function parseCount(text: string, least: number): number | undefined {
  if (!/^\d{1,15}$/.test(text)) return undefined;
  const count = Number(text);
  return count >= least ? count : undefined;
}

function wrong(origin: string, what: string): RunnerError {
  return new RunnerError("USAGE", `${origin}: ${what}`);
}
