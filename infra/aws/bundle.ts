/**
 * Makes what AWS Lambda runs: `node infra/aws/bundle.ts OUT` writes the folder OUT, whose handler is `index.handler`, and
 * `OUT.zip`. Run in a checkout, after `npm ci`. The same checkout gives the same bytes.
 */
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { zipSync, type Zippable } from "fflate";
import { bundle, writeBundle, type Bundle } from "../bundle/bundle.ts";

/** What was made. */
export interface LambdaBundle {
  readonly outputs: Bundle["outputs"];
  readonly zipBytes: number;
}

/**
 * Parsers of SQL and TypeScript stay out, since a function applies what was checked when it was published; and it signs
 * nothing.
 */
const external = ["libpg-query", "esbuild", "@aws-sdk/client-kms", "pg-native"];

/** What a cold start reads at once: all that answers an event, then one database and one bucket. */
const groups = [
  {
    name: "run",
    test: /\/src\/(?:together|runner|(?:run|driver|history|migration)\/[\w-]+|source\/(?!s3|gcs|folder|make-folders|at-once)[\w-]+|release\/(?:signed|trust\/trust-file)|bin\/lambda\/(?:handler|host|work|execution|message)|bin\/config(?:-file|-schema)?)\.ts$/,
  },
  { name: "postgres", test: /\/src\/driver\/postgres\/postgres\.ts$/ },
  { name: "mongodb", test: /\/src\/driver\/mongodb\/mongodb\.ts$/ },
  { name: "s3", test: /\/src\/source\/s3\.ts$/ },
  { name: "gcs", test: /\/src\/source\/gcs\.ts$/ },
  { name: "http", test: /\/src\/bin\/lambda\/http\.ts$/ },
];

/**
 * Bundles, and writes the folder and its zip.
 *
 * @throws Error when the folder holds something else, or the bundler finds an error
 */
export async function bundleLambda(out: string): Promise<LambdaBundle> {
  const folder = resolve(out);
  makeRoom(folder);
  const made = await bundle({
    entry: "src/bin/lambda.ts",
    name: "index.mjs",
    external,
    groups,
    keepsNames: false,
  });
  writeBundle(folder, made);
  const zip = zipSync(entriesOf(made.files), { level: 9 });
  writeFileSync(`${folder}.zip`, zip);
  return { outputs: made.outputs, zipBytes: zip.length };
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
