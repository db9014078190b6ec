import { randomUUID } from "node:crypto";
import { registerHooks, SourceMap, type SourceMapPayload } from "node:module";

import { RunnerError } from "../error.ts";
import type { MigrationFunction, SourcePlace } from "../migration/code.ts";
import type { Engine } from "../migration/migration.ts";

/** A body that is a program, ready to be called. */
export interface LoadedCode {
  /** Evaluates the module, then calls its function. */
  readonly run: MigrationFunction<Engine>;
  /** Where in the sources an error's stack leads to; undefined where it does not touch the program. */
  locate(stack: string): SourcePlace | undefined;
}

/**
 * Makes a program of its verified bytes. They are evaluated in this very process: whoever is at the command line runs
 * code of their own, with their own rights, as with any script. Nothing is written to disk, so a read-only root will do.
 *
 * Each call is a module of its own: a migration that runs twice finds nothing of the first time.
 */
export function loadCode(bytes: Buffer, path: string): LoadedCode {
  const text = bytes.toString("utf8");
  const url = `lockkeeper:${randomUUID()}/${path}`;
  return {
    async run(context) {
      const call = await evaluate(url, text, path);
      await call(context);
    },
    locate: (stack) => locate(stack, url, text),
  };
}

/** Imports the text under a URL that nobody else can resolve. */
async function evaluate(url: string, text: string, path: string): Promise<MigrationFunction<Engine>> {
  const hooks = registerHooks({
    resolve: (specifier, context, next) =>
      specifier === url ? { url, format: "module", shortCircuit: true } : next(specifier, context),
    load: (asked, context, next) =>
      asked === url ? { format: "module", source: text, shortCircuit: true } : next(asked, context),
  });
  try {
    // By way of a data: URL, which even tools that put an import() of their own in place of Node's leave to Node.
    const door: unknown = await import(
      `data:text/javascript,${encodeURIComponent(`export * as program from "${url}";`)}`
    );
    const call = memberOf(memberOf(door, "program"), "default");
    if (isFunction(call)) return call;
  } finally {
    hooks.deregister();
  }
  throw new RunnerError("MIGRATION_FAILED", `"${path}" has no function as its default export`, {
    hint: "write export default async function up(context) { … }",
    fields: { migration: path },
  });
}

function memberOf(value: unknown, name: string): unknown {
  return value !== null && typeof value === "object" ? Reflect.get(value, name) : undefined;
}

function isFunction(value: unknown): value is MigrationFunction<Engine> {
  return typeof value === "function";
}

/** The innermost frame of the program, by the source map at the end of its bundle. */
function locate(stack: string, url: string, text: string): SourcePlace | undefined {
  const start = stack.indexOf(`${url}:`);
  if (start < 0) return undefined;
  const [, line, column] = /^:(\d+):(\d+)/.exec(stack.slice(start + url.length)) ?? [];
  const map = sourceMapOf(text);
  if (line === undefined || column === undefined || map === undefined) return undefined;
  const entry = map.findEntry(Number(line) - 1, Number(column) - 1);
  if (!("originalSource" in entry)) return undefined;
  return { file: entry.originalSource, line: entry.originalLine + 1, column: entry.originalColumn + 1 };
}

function sourceMapOf(text: string): SourceMap | undefined {
  const mark = "//# sourceMappingURL=data:application/json;base64,";
  const start = text.lastIndexOf(mark);
  if (start < 0) return undefined;
  const [encoded = ""] = text.slice(start + mark.length).split("\n");
  try {
    // Of bytes that were verified; a wrong one would only lead to a wrong line.
    return new SourceMap(JSON.parse(Buffer.from(encoded, "base64").toString("utf8")) as SourceMapPayload);
  } catch {
    // What it would tell is a comfort only.
    return undefined;
  }
}
