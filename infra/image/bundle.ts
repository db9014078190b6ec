/**
 * Makes what the container image runs: `node infra/image/bundle.ts OUT` writes the command line with all that it imports
 * into the folder OUT: `cli.js` and the files that it loads when a verb needs them. Run in a checkout, after `npm ci`.
 *
 * The packages as npm installs them are 98 MB in 11,500 files, and half of the time that a start takes is reading them.
 */
import { cpSync, mkdirSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { build } from "esbuild";
import { bundling, licencesOf } from "../bundled.ts";

const root = join(import.meta.dirname, "../..");

/** The parser of PostgreSQL is WebAssembly beside its script: it stays a package. */
const packages = ["libpg-query"];

/**
 * Not in the image: the compiler that `publish` needs for migrations that are programs, keys in AWS's KMS, and native
 * parts that their packages do without.
 */
const absent = [
  "esbuild",
  "@aws-sdk/client-kms",
  "pg-native",
  "kerberos",
  "snappy",
  "socks",
  "@mongodb-js/zstd",
  "mongodb-client-encryption",
];

const [out, ...rest] = process.argv.slice(2);
if (out === undefined || rest.length > 0) throw new Error("usage: node infra/image/bundle.ts OUT");
const folder = resolve(out);
mkdirSync(folder, { recursive: true });
const { metafile } = await build({
  ...bundling,
  entryPoints: { cli: "src/bin/cli.ts" },
  outdir: folder,
  // An error's stack names functions all the same.
  keepNames: true,
  external: [...packages, ...absent],
});
for (const name of packages)
  cpSync(join(root, "node_modules", name), join(folder, "node_modules", name), { recursive: true });
writeFileSync(join(folder, "package.json"), '{ "type": "module" }\n');
writeFileSync(join(folder, "LICENSES.txt"), licencesOf(metafile));
const bytes = Object.values(metafile.outputs).reduce((sum, output) => sum + output.bytes, 0);
process.stdout.write(
  `${folder}: ${Object.keys(metafile.outputs).length} files, ${Math.ceil(bytes / 1024)} KiB\n`,
);
