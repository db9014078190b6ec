/**
 * Makes what AWS Lambda runs: `node infra/aws/bundle.ts OUT` writes the folder OUT, whose handler is `index.handler`, and
 * `OUT.zip`. Run in a checkout, after `npm ci`. The same checkout gives the same bytes.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { build, type Metafile, type Plugin } from "esbuild";
import { zipSync, type Zippable } from "fflate";

/** What was made. */
export interface LambdaBundle {
  /** sizes and imports of every file, by its path from the folder's */
  readonly outputs: Readonly<Record<string, Metafile["outputs"][string]>>;
  readonly zipBytes: number;
}

const root = join(import.meta.dirname, "../..");

/**
 * Parsers of SQL and TypeScript stay out, since a function applies what was checked when it was published; as do native
 * parts that their packages do without.
 */
const external = [
  "libpg-query",
  "esbuild",
  "pg-native",
  "kerberos",
  "snappy",
  "socks",
  "@mongodb-js/zstd",
  "@aws-sdk/client-kms",
  "@aws-sdk/credential-providers",
  "mongodb-client-encryption",
  "gcp-metadata",
];

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

/**
 * Bundles, and writes the folder and its zip.
 *
 * @throws Error when the folder holds something else, or the bundler finds an error
 */
export async function bundleLambda(out: string): Promise<LambdaBundle> {
  const folder = resolve(out);
  makeRoom(folder);
  const { metafile, outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: { index: "src/bin/lambda.ts" },
    outdir: folder,
    bundle: true,
    splitting: true,
    format: "esm",
    platform: "node",
    target: "node24",
    // Modules as they were written can be left out where nobody uses them.
    mainFields: ["module", "main"],
    minify: true,
    legalComments: "none",
    outExtension: { ".js": ".mjs" },
    chunkNames: "chunks/[name]-[hash]",
    banner: { js: banner },
    external,
    plugins: [version],
    metafile: true,
    write: false,
    logLevel: "error",
  });
  const files = new Map<string, Uint8Array>(
    outputFiles.map(({ path, contents }) => [path.slice(folder.length + 1).replaceAll("\\", "/"), contents]),
  );
  files.set("LICENSES.txt", Buffer.from(licencesOf(metafile)));
  for (const [name, bytes] of files) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), bytes);
  }
  const zip = zipSync(entriesOf(files), { level: 9 });
  writeFileSync(`${folder}.zip`, zip);
  const outputs = Object.entries(metafile.outputs).map(
    ([path, output]) =>
      [
        resolve(root, path)
          .slice(folder.length + 1)
          .replaceAll("\\", "/"),
        output,
      ] as const,
  );
  return { outputs: Object.fromEntries(outputs), zipBytes: zip.length };
}

/** An earlier bundle is replaced; anything else is somebody's. */
function makeRoom(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const there = readdirSync(folder);
  if (there.length > 0 && !there.includes("index.mjs"))
    throw new Error(`${folder} is neither empty nor an earlier bundle`);
  rmSync(folder, { recursive: true });
}

/** In one order and of one time, readable for everybody: Lambda runs a function as a user of its own. */
function entriesOf(files: ReadonlyMap<string, Uint8Array>): Zippable {
  const options = { mtime: new Date(1980, 0, 1), os: 3, attrs: 0o100644 << 16 } as const;
  return Object.fromEntries(
    [...files.keys()].toSorted().map((name) => [name, [files.get(name) ?? new Uint8Array(), options]]),
  );
}

/** The licences of the packages whose code is in it, as they ask for. */
function licencesOf({ outputs }: Metafile): string {
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

if (import.meta.main) {
  const [out, ...rest] = process.argv.slice(2);
  if (out === undefined || rest.length > 0) {
    process.stderr.write("usage: node infra/aws/bundle.ts OUT\n");
    process.exitCode = 2;
  } else {
    const { outputs, zipBytes } = await bundleLambda(out);
    process.stdout.write(
      `${resolve(out)}.zip: ${Object.keys(outputs).length} files, ${Math.ceil(zipBytes / 1024)} KiB\n`,
    );
  }
}
