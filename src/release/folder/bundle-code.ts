import { isBuiltin } from "node:module";
import { fileURLToPath } from "node:url";

import type { BuildResult, ImportKind, Metafile } from "esbuild";

import { RunnerError } from "../../error.ts";
import { releaseLimits } from "../limits.ts";

/** A program's source file, and where it was read. */
export interface CodeFile {
  readonly path: string;
  readonly bytes: Buffer;
  /** of its source: what it imports can be read only in a folder of this machine */
  readonly sourceUrl: string;
}

/**
 * Makes one ES module of a program and all that it imports, but what Node itself has. Writes nothing to disk.
 *
 * The same files give the same bytes: neither time nor place of the folder goes into them, and no `tsconfig.json`. The
 * bundler's version does, so it is pinned with ours.
 *
 * @throws RunnerError `FORMAT` — what is wrong with the program, with its file and line; nothing is exported as default
 * @throws RunnerError `USAGE` — the bundler is not installed; `TOO_LARGE`
 */
export async function bundleCode(file: CodeFile): Promise<Buffer> {
  const { build } = await loadBundler();
  const folder = folderOf(file.sourceUrl);
  const options = {
    stdin: {
      contents: file.bytes,
      sourcefile: file.path,
      loader: /\.m?ts$/.test(file.path) ? "ts" : "js",
      ...(folder === undefined ? {} : { resolveDir: folder }),
    },
    ...(folder === undefined ? {} : { absWorkingDir: folder }),
    outfile: `${file.path}.bundle.js`,
    bundle: true,
    format: "esm",
    platform: "node",
    target: "node24",
    charset: "utf8",
    legalComments: "none",
    // Lines of the source in what is said of an error; the sources themselves stay at home.
    sourcemap: "inline",
    sourcesContent: false,
    tsconfigRaw: "{}",
    metafile: true,
    write: false,
    logLevel: "silent",
  } as const;
  let result: BuildResult<typeof options>;
  try {
    result = await build(options);
  } catch (cause) {
    throw notBundled(file.path, cause, folder);
  }
  const [bundle] = result.outputFiles;
  const [output] = Object.values(result.metafile.outputs);
  if (bundle === undefined || output === undefined)
    throw new RunnerError("INTERNAL", `"${file.path}" was bundled into nothing`);
  assertWhole(file.path, output);
  const bytes = Buffer.concat([bundle.contents, Buffer.from(requireFor(output))]);
  if (bytes.length <= releaseLimits.blobBytes) return bytes;
  throw new RunnerError(
    "TOO_LARGE",
    `"${file.path}" has ${bytes.length} bytes with all that it imports, more than ${releaseLimits.blobBytes}`,
    {
      hint: "import less",
      fields: { migration: file.path, size: bytes.length, limit: releaseLimits.blobBytes },
    },
  );
}

async function loadBundler() {
  try {
    return await import("esbuild");
  } catch (cause) {
    throw new RunnerError(
      "USAGE",
      "migrations in TypeScript or JavaScript need esbuild, which is not installed",
      {
        hint: "npm install esbuild@0.28.2, beside lockkeeper; a signed release needs it only where it is published",
        cause,
      },
    );
  }
}

function folderOf(sourceUrl: string): string | undefined {
  return sourceUrl.startsWith("file:") ? fileURLToPath(sourceUrl).replace(/(?<=.)\/$/, "") : undefined;
}

type Output = Metafile["outputs"][string];

/** Kinds of imports that a bundle keeps for what Node itself has. */
const requireKinds: ReadonlySet<string> = new Set<ImportKind>(["require-call", "require-resolve"]);

function assertWhole(path: string, { imports, exports, inputs }: Output): void {
  const foreign = imports.find(({ path: name }) => !isBuiltin(name));
  if (foreign !== undefined) {
    const hasDriver = Object.keys(inputs).some((name) => name.includes("node_modules/mongodb/"));
    throw new RunnerError(
      "FORMAT",
      `"${path}" imports ${JSON.stringify(foreign.path)}, which cannot be put into its bundle`,
      {
        hint: hasDriver
          ? 'take ObjectId and other values from "bson" in place of "mongodb": the driver itself is given to the program'
          : "leave it out, or do without the package that asks for it",
        fields: { migration: path },
      },
    );
  }
  if (!exports.includes("default"))
    throw codeError(`"${path}" has no default export: the function that is to be called`, path);
}

/** Packages of the old kind ask for Node's own modules by `require`, which an ES module does not have. */
function requireFor({ imports }: Output): string {
  return imports.some(({ kind }) => requireKinds.has(kind))
    ? "function require(name) { return process.getBuiltinModule(name); }\n"
    : "";
}

function notBundled(path: string, cause: unknown, folder: string | undefined): RunnerError {
  const [first] = failuresOf(cause);
  if (first === undefined) return codeError(`"${path}" cannot be bundled`, path, cause);
  const { text, location } = first;
  const where = location === null ? `"${path}"` : `${location.file}:${location.line}:${location.column + 1}`;
  const isAway = folder === undefined && text.startsWith("Could not resolve");
  return new RunnerError("FORMAT", `${where}: ${text}`, {
    hint: isAway
      ? "what a program imports is read only from a folder of this machine: publish it from there"
      : "correct the program",
    fields: {
      migration: path,
      ...(location === null ? {} : { line: location.line, column: location.column + 1 }),
    },
    cause,
  });
}

interface BundlerMessage {
  readonly text: string;
  readonly location: { readonly file: string; readonly line: number; readonly column: number } | null;
}

function failuresOf(cause: unknown): readonly BundlerMessage[] {
  if (!(cause instanceof Error) || !("errors" in cause) || !Array.isArray(cause.errors)) return [];
  return cause.errors as readonly BundlerMessage[];
}

function codeError(message: string, path: string, cause?: unknown): RunnerError {
  return new RunnerError("FORMAT", message, { fields: { migration: path }, cause });
}
