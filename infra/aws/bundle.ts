/**
 * Makes what AWS Lambda runs: `node infra/aws/bundle.ts OUT` writes the folder OUT, whose handler is `index.handler`, and
 * `OUT.zip`. Run in a checkout, after `npm ci`. The same checkout gives the same bytes.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { build, type Metafile } from "esbuild";
import { zipSync, type Zippable } from "fflate";
import { bundling, licencesOf } from "../bundled.ts";

/** What was made. */
export interface LambdaBundle {
  /** sizes and imports of every file, by its path from the folder's */
  readonly outputs: Readonly<Record<string, Metafile["outputs"][string]>>;
  readonly zipBytes: number;
}

const root = join(import.meta.dirname, "../..");

/**
 * Parsers of SQL and TypeScript stay out, since a function applies what was checked when it was published; and it signs
 * nothing. What packages only try to load, such as native parts, the bundler leaves out where it is not installed.
 */
const external = ["libpg-query", "esbuild", "@aws-sdk/client-kms"];

/**
 * Bundles, and writes the folder and its zip.
 *
 * @throws Error when the folder holds something else, or the bundler finds an error
 */
export async function bundleLambda(out: string): Promise<LambdaBundle> {
  const folder = resolve(out);
  makeRoom(folder);
  const { metafile, outputFiles } = await build({
    ...bundling,
    entryPoints: { index: "src/bin/lambda.ts" },
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    external,
    write: false,
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
