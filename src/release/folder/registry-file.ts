import * as v from "valibot";

import { RunnerError } from "../../error.ts";
import { releaseLimits } from "../limits.ts";
import { lineText, registryProblems, versionText } from "../registry.ts";
import type { Registry } from "../registry.ts";
import { nameText } from "../schema.ts";

/** The file beside the migrations of a folder; it belongs to no tool's layout. */
export const registryFile = ".migration-registry.yaml";

/**
 * Refuses a file that was meant to be the registry: whoever wrote it counts on what it says.
 *
 * @throws RunnerError `UNKNOWN_FILE`
 */
export function assertRegistryName(names: readonly string[]): void {
  const meant = names.find((name) => /^\.?migrations?[-_.]?registry\.(ya?ml|json)$/i.test(name));
  if (meant === undefined) return;
  throw new RunnerError("UNKNOWN_FILE", `"${meant}" looks like a registry of services, but is not read`, {
    hint: `rename it to ${registryFile}, or move it away`,
    fields: { migration: meant },
  });
}

/**
 * Reads a folder's registry.
 *
 * All of its scalars are texts to us, so that `1.10` and `0007` are the versions that stand there.
 *
 * @param versions - of the folder's migrations
 * @throws RunnerError `SCHEMA` — with every problem, each with its line and column; `TOO_LARGE`
 */
export async function readRegistry(bytes: Uint8Array, versions: readonly string[]): Promise<Registry> {
  if (bytes.length > releaseLimits.registryBytes) {
    throw new RunnerError(
      "TOO_LARGE",
      `${registryFile} has ${bytes.length} bytes, more than ${releaseLimits.registryBytes}`,
    );
  }
  const { LineCounter, isMap, isNode, isScalar, parseDocument } = await import("yaml");
  const lines = new LineCounter();
  const text = textOf(bytes);
  const document = orProblem(() =>
    parseDocument(text, {
      schema: "failsafe",
      lineCounter: lines,
      prettyErrors: false,
      // the library would print what it warns of, with a piece of the file
      logLevel: "error",
    }),
  );
  const at = (offset: number): Place => {
    const { line, col } = lines.linePos(offset);
    return { line, column: col };
  };
  /** where the deepest part of `path` that is there begins; the key's own place where that is asked for */
  const placeOf = (path: Path, isKey: boolean): Place => {
    const parent: unknown = document.getIn(path.slice(0, -1), true);
    if (isKey && isMap(parent)) {
      const key = parent.items
        .map((item) => item.key)
        .find((node) => isScalar(node) && node.value === path.at(-1));
      if (isNode(key) && key.range) return at(key.range[0]);
    }
    for (let length = path.length; length >= 0; length--) {
      const node: unknown = length === 0 ? document.contents : document.getIn(path.slice(0, length), true);
      if (isNode(node) && node.range) return at(node.range[0]);
    }
    return { line: 1, column: 1 };
  };
  const mistakes = [...document.errors, ...document.warnings];
  if (mistakes.length > 0)
    throw problemsOf(
      mistakes.map(({ pos, message }) => ({ ...at(pos[0]), path: "", message: firstLine(message) })),
    );
  const read = v.safeParse(
    fileSchema,
    contentOf(() => document.toJS({ maxAliasCount: 100 })),
  );
  if (!read.success) {
    throw problemsOf(
      read.issues.map((issue) => {
        const path = (issue.path ?? []).map(({ key }) => (typeof key === "number" ? key : String(key)));
        return { ...placeOf(path, isUnknownKey(issue)), path: path.join("."), message: wordsOf(issue) };
      }),
    );
  }
  const registry = toRegistry(read.output);
  const problems = registryProblems(registry, versions);
  if (problems.length === 0) return registry;
  throw problemsOf(
    problems.map(({ path, message }) => ({ ...placeOf(path, false), path: path.join("."), message })),
  );
}

const flagText = v.picklist(["true", "false"], "true or false");

const fileSchema = v.strictObject(
  {
    service: nameText,
    database: v.pipe(lineText, v.minLength(1, "the name of a database")),
    migrations: v.pipe(
      v.array(
        v.strictObject(
          {
            version: versionText,
            description: v.optional(lineText),
            breaking: v.optional(flagText, "false"),
            dependencies: v.optional(
              v.pipe(
                v.array(
                  v.strictObject(
                    { service: nameText, "min-version": versionText },
                    "service and min-version",
                  ),
                  "a list",
                ),
                v.maxLength(releaseLimits.dependencies, `at most ${releaseLimits.dependencies} of them`),
              ),
              [],
            ),
          },
          "a mapping with version, description, breaking, dependencies",
        ),
        "a list",
      ),
      v.maxLength(releaseLimits.migrations, `at most ${releaseLimits.migrations} of them`),
    ),
  },
  "a mapping with service, database, migrations",
);

function toRegistry({ service, database, migrations }: v.InferOutput<typeof fileSchema>): Registry {
  return {
    service,
    database,
    migrations: migrations.map(({ version, description, breaking, dependencies }) => ({
      version,
      ...(description === undefined ? {} : { description }),
      breaking: breaking === "true",
      dependencies: dependencies.map((dependency) => ({
        service: dependency.service,
        minVersion: dependency["min-version"],
      })),
    })),
  };
}

interface Place {
  /** from 1 */
  readonly line: number;
  /** from 1 */
  readonly column: number;
}

type Path = readonly (string | number)[];

interface Problem extends Place {
  /** `migrations.3.version`; empty for the file as a whole */
  readonly path: string;
  readonly message: string;
}

const maxListedProblems = 10;

function problemsOf(problems: readonly Problem[]): RunnerError {
  const sorted = problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
  const told = sorted.slice(0, maxListedProblems).map(({ line, column, path, message }) => {
    return `${registryFile}:${line}:${column} ${path === "" ? "" : `${path}: `}${message}`;
  });
  const more = sorted.length > told.length ? [`and ${sorted.length - told.length} more`] : [];
  const lines = [...told, ...more];
  return new RunnerError(
    "SCHEMA",
    lines.length === 1
      ? (lines[0] ?? "")
      : `${registryFile} has ${sorted.length} problems\n${lines.map((line) => `  ${line}`).join("\n")}`,
    {
      hint: "it has service, database and migrations; each of these a version, and may have description, breaking: true and dependencies of service and min-version",
      fields: { file: registryFile, line: sorted[0]?.line ?? 1, column: sorted[0]?.column ?? 1 },
    },
  );
}

function isUnknownKey(issue: v.BaseIssue<unknown>): boolean {
  return issue.type === "strict_object" && issue.expected === "never";
}

function wordsOf(issue: v.BaseIssue<unknown>): string {
  if (isUnknownKey(issue)) return "is not a field of this file";
  return issue.input === undefined ? "is missing" : `must be ${issue.message}`;
}

function textOf(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new RunnerError("ENCODING", `${registryFile} is not valid UTF-8`, { cause });
  }
}

/** Aliases that lead nowhere, or multiply without end, are found only here. */
function contentOf(read: () => unknown): unknown {
  const value = orProblem(read);
  // to a schema a list is a mapping whose keys are missing
  return Array.isArray(value) ? "a list" : value;
}

/** The library's own refusals are the file's problems: aliases without end, and a nesting that leaves it no stack. */
function orProblem<T>(read: () => T): T {
  try {
    return read();
  } catch (cause) {
    const why =
      cause instanceof RangeError
        ? "nested too deep"
        : cause instanceof Error
          ? firstLine(cause.message)
          : "cannot be read";
    throw problemsOf([{ line: 1, column: 1, path: "", message: why }]);
  }
}

function firstLine(text: string): string {
  return text.split("\n")[0] ?? text;
}
