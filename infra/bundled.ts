/** What our bundles have in common, for AWS Lambda and for the container image. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { BuildOptions, Metafile, Plugin } from "esbuild";

const root = join(import.meta.dirname, "..");

/** Packages of the old kind ask for Node's own modules by `require`, and try whether others are there. */
const banner = `const require=n=>{const m=process.getBuiltinModule(n);if(m)return m;throw Object.assign(new Error("Cannot find module '"+n+"'"),{code:"MODULE_NOT_FOUND"})};`;

/** The bundle has no package file to read its version from. */
const version: Plugin = {
  name: "version",
  setup({ onLoad }) {
    onLoad({ filter: /[/\\]src[/\\]build\.ts$/ }, () => ({
      contents: `export const version = () => ${JSON.stringify(manifestOf(root).version)};`,
    }));
  },
};

/** How they are made: in pieces, each loaded when it is needed. */
export const bundling = {
  absWorkingDir: root,
  bundle: true,
  splitting: true,
  format: "esm",
  platform: "node",
  target: "node24",
  // Modules as they were written can be left out where nobody uses them.
  mainFields: ["module", "main"],
  minify: true,
  legalComments: "none",
  chunkNames: "chunks/[name]-[hash]",
  banner: { js: banner },
  plugins: [version],
  metafile: true,
  logLevel: "error",
} satisfies BuildOptions;

/** The licences of the packages whose code is in it, as they ask for. */
export function licencesOf({ outputs }: Metafile): string {
  const inputs = Object.values(outputs).flatMap((output) => Object.keys(output.inputs));
  const folders = inputs.flatMap((path) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path) ?? []);
  const texts = new Map<string, string[]>();
  for (const folder of new Set(folders)) {
    const { name, version, license = "see its package" } = manifestOf(join(root, folder));
    const file = readdirSync(join(root, folder)).find((one) => /^licen[cs]e/i.test(one));
    const text = file === undefined ? license : readFileSync(join(root, folder, file), "utf8").trim();
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
