/** What our bundles have in common: for AWS Lambda, for the container image and for npm. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { rolldown, type Plugin, type RolldownOutput } from "rolldown";

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
    const statement =
      /^import\s*(?:([\w$]+)\s*,?\s*)?(?:\{([^}]*)\}|\*\s*as\s+([\w$]+))?\s*from\s*["'](node:[\w/]+)["'];$/gm;
    return code.replace(statement, (_all, ...[whole, names, all, module]: (string | undefined)[]) => {
      const parts = names === undefined ? [] : [`{ ${names.replaceAll(" as ", ": ")} }`];
      return [...parts, whole, all]
        .filter((part) => part !== undefined)
        .map((part) => `const ${part} = process.getBuiltinModule("${module}");`)
        .join(" ");
    });
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
    plugins: [version, builtins],
    checks: { ineffectiveDynamicImport: false },
  });
  const { output } = await build.generate({
    format: "esm",
    minify: keepsNames ? { compress: true, codegen: true, mangle: false } : true,
    comments: false,
    entryFileNames: "[name]",
    chunkFileNames: `chunks/[name]-[hash]${/\.m?js$/.exec(name)?.[0] ?? ".js"}`,
    codeSplitting: { groups: groups.map((group, index) => ({ ...group, priority: groups.length - index })) },
  });
  await build.close();
  return { files: filesOf(output), outputs: outputsOf(output) };
}

/** Writes a bundle into a folder; what else is there stays. */
export function writeBundle(folder: string, { files }: Pick<Bundle, "files">): void {
  for (const [name, bytes] of files) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
}

function filesOf(output: RolldownOutput["output"]): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>();
  for (const file of output)
    files.set(file.fileName, Buffer.from(file.type === "chunk" ? file.code : file.source));
  files.set(
    "LICENSES.txt",
    Buffer.from(licencesOf(Object.values(outputsOf(output)).flatMap((one) => one.inputs))),
  );
  return files;
}

function outputsOf(output: RolldownOutput["output"]): Record<string, BundledFile> {
  return Object.fromEntries(
    output.flatMap((file) =>
      file.type === "chunk"
        ? [
            [
              file.fileName,
              {
                bytes: Buffer.byteLength(file.code),
                exports: file.exports,
                inputs: file.moduleIds.map((id) => relative(root, id).replaceAll("\\", "/")),
              },
            ] as const,
          ]
        : [],
    ),
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
