/** What our bundles have in common: for AWS Lambda, for the container image and for npm. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { isBuiltin } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import { rolldown, type OutputChunk, type Plugin } from "rolldown";

/** How one is made. */
export interface BundleOptions {
  /** the file that is run, from the project's root */
  readonly entry: string;
  /** what that file is called in the bundle */
  readonly name: string;
  /** packages that stay packages, or are absent */
  readonly external: readonly string[];
  /**
   * Modules, with all that they import, that come in one file: what one way through the program needs at once. The first
   * that takes a module has it. All others come in the pieces that they are loaded in.
   */
  readonly groups: readonly { readonly name: string; readonly test: RegExp }[];
  /** names of functions as they were written, for who reads a stack */
  readonly keepsNames: boolean;
}

/** One file of a bundle. */
export interface BundledFile {
  readonly bytes: number;
  readonly exports: readonly string[];
  /** what is in it: paths from the project's root */
  readonly inputs: readonly string[];
}

/** What was made. */
export interface Bundle {
  /** everything, by its path from the bundle's folder */
  readonly files: ReadonlyMap<string, Uint8Array>;
  /** the programs among them */
  readonly outputs: Readonly<Record<string, BundledFile>>;
}

const root = join(import.meta.dirname, "../..");

/** The bundle has no package file to read its version from. */
const version: Plugin = {
  name: "version",
  load: {
    filter: { id: /[/\\]src[/\\]build\.ts$/ },
    handler: () => `export const version = () => ${JSON.stringify(manifestOf(root).version)};`,
  },
};

/**
 * Node's own modules are taken as they are. An `import` would make a copy of all that each exports, and thereby load what
 * nobody asked for: of `node:http` WebSockets, of `node:tls` every root certificate.
 */
const builtins: Plugin = {
  name: "builtins",
  renderChunk(code) {
    const requireAtOnce = "(() => createRequire(import.meta.url))()";
    const required = /\b__require\("([\w/:]+)"\)/g;
    const statement =
      /^import\s*(?:([\w$]+)\s*,?\s*)?(?:\{([^}]*)\}|\*\s*as\s+([\w$]+))?\s*from\s*["'](node:[\w/]+)["'];$/gm;
    // What makes a `require` is for packages that may be absent, which few runs look for.
    const lean = code.includes(requireAtOnce)
      ? code
          .replace('import { createRequire } from "node:module";', "")
          .replace(
            requireAtOnce,
            '(id) => process.getBuiltinModule("node:module").createRequire(import.meta.url)(id)',
          )
      : code;
    return (
      lean
        .replace(statement, (_all, ...[whole, names, all, module]: (string | undefined)[]) => {
          const parts = names === undefined ? [] : [`{ ${names.replaceAll(" as ", ": ")} }`];
          return [...parts, whole, all]
            .filter((part) => part !== undefined)
            .map((part) => `const ${part} = process.getBuiltinModule("${module}");`)
            .join(" ");
        })
        // Not by the name `process` alone, which is what some call the very module that they require.
        .replace(required, (all, module: string) =>
          isBuiltin(module) ? `globalThis.process.getBuiltinModule("${module}")` : all,
        )
    );
  },
};

/** Commander can run verbs that are programs of their own. Ours are not, and what starts programs takes long to load. */
const subprograms: Plugin = {
  name: "subprograms",
  transform: {
    filter: { id: /[/\\]commander[/\\]lib[/\\]command\.js$/ },
    handler: (code) =>
      code.replace(
        /^import childProcess from ['"]node:child_process['"];$/m,
        "const childProcess = undefined;",
      ),
  },
};

/** What MongoDB's driver has no need of, and loads where it is installed: other ways to log in, compress and encrypt. */
function isTried(id: string, importer: string | undefined): boolean {
  return /node_modules[/\\]mongodb[/\\]lib[/\\]deps\.js$/.test(importer ?? "") && /^[@a-z]/.test(id);
}

/** Bundles; the same checkout gives the same bytes. Writes nothing. */
export async function bundle(options: BundleOptions): Promise<Bundle> {
  const { entry, name, external, groups, keepsNames } = options;
  const build = await rolldown({
    cwd: root,
    input: { [name]: join(root, entry) },
    platform: "node",
    external: (id, importer) => external.includes(id) || isTried(id, importer),
    // Modules as they were written can be left out where nobody uses them.
    resolve: { mainFields: ["module", "main"] },
    plugins: [version, builtins, subprograms],
    checks: { ineffectiveDynamicImport: false },
  });
  const { output } = await build.generate({
    format: "esm",
    minify: { compress: true, codegen: true, mangle: { toplevel: true, keepNames: keepsNames } },
    comments: false,
    entryFileNames: "[name]",
    chunkFileNames: `chunks/[name]-[hash]${/\.m?js$/.exec(name)?.[0] ?? ".js"}`,
    codeSplitting: { groups: groups.map((group, index) => ({ ...group, priority: groups.length - index })) },
  });
  await build.close();
  const pieces = withoutFacades(output.flatMap((file) => (file.type === "chunk" ? [pieceOf(file)] : [])));
  return { files: filesOf(pieces), outputs: outputsOf(pieces) };
}

/** Writes a bundle into a folder; what else is there stays. */
export function writeBundle(folder: string, { files }: Pick<Bundle, "files">): void {
  for (const [name, bytes] of files) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
}

/** One file of the program, as the bundler gives it. */
interface Piece {
  readonly name: string;
  readonly code: string;
  readonly exports: readonly string[];
  readonly inputs: readonly string[];
}

function pieceOf({ fileName, code, exports, moduleIds }: OutputChunk): Piece {
  const inputs = moduleIds.map((id) => relative(root, id).replaceAll("\\", "/"));
  return { name: fileName, code, exports, inputs };
}

/** What the bundler writes for an `import()` of a module that shares its file with others: `export{t as run}from"./run.js";` */
const facade = /^export\s*\{([^}]*)\}\s*from\s*"\.\/([^"]+)";?\s*$/;

/**
 * Has each `import()` go to the file that its module is in. Whatever is in between holds names alone, and Node takes about as
 * long for a file of 50 bytes as for one of 20 KiB.
 */
function withoutFacades(pieces: readonly Piece[]): readonly Piece[] {
  const facades = new Map(
    pieces.flatMap(({ name, code }) => {
      const [, names, file] = facade.exec(code) ?? [];
      return names === undefined || file === undefined ? [] : [[basename(name), { names, file }]];
    }),
  );
  const imported = /\bimport\(([`"])(\.\/(?:chunks\/)?)([\w.-]+)\1\)/g;
  const direct = pieces.map((piece) => ({
    ...piece,
    code: piece.code.replace(imported, (all, _quote, folder: string, name: string) => {
      const found = facades.get(name);
      if (found === undefined) return all;
      const given = found.names.split(",").map((one) => {
        const [inFile = "", outside = inFile] = one.trim().split(/\s+as\s+/);
        return `${outside}:m.${inFile}`;
      });
      return `import("${folder}${found.file}").then(m=>({${given.join(",")}}))`;
    }),
  }));
  return direct.filter(({ name }) => !facades.has(basename(name)) || !name.startsWith("chunks/"));
}

function filesOf(pieces: readonly Piece[]): Map<string, Uint8Array> {
  const licences = licencesOf(pieces.flatMap(({ inputs }) => inputs));
  return new Map([
    ...pieces.map(({ name, code }) => [name, Buffer.from(code)] as const),
    ["LICENSES.txt", Buffer.from(licences)] as const,
  ]);
}

function outputsOf(pieces: readonly Piece[]): Record<string, BundledFile> {
  return Object.fromEntries(
    pieces.map(({ name, code, exports, inputs }) => [
      name,
      { bytes: Buffer.byteLength(code), exports, inputs },
    ]),
  );
}

/** The licences of the packages whose code is in it, as they ask for. */
function licencesOf(inputs: readonly string[]): string {
  const folders = inputs.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path) ?? []);
  const texts = new Map<string, string[]>();
  for (const folder of new Set(folders)) {
    const { name, version, license = "see its package" } = manifestOf(resolve(root, folder));
    const file = readdirSync(resolve(root, folder)).find((one) => /^licen[cs]e/i.test(one));
    const text = file === undefined ? license : readFileSync(resolve(root, folder, file), "utf8").trim();
    texts.set(text, [...(texts.get(text) ?? []), `${name} ${version}`]);
  }
  const own = readFileSync(join(root, "LICENSE"), "utf8").trim();
  const others = [...texts].map(([text, names]) => `${names.toSorted().join("\n")}\n\n${text}`).toSorted();
  return `${["lockkeeper", own].join("\n\n")}\n${others.map((one) => `\n${"-".repeat(80)}\n${one}\n`).join("")}`;
}

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
}

function manifestOf(folder: string): Manifest {
  return JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest;
}
