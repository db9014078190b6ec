/**
 * Makes what the container image runs: `node infra/image/bundle.ts OUT` writes the command line with all that it imports
 * into the folder OUT. Run in a checkout, after `npm ci`.
 *
 * The packages as npm installs them are 98 MB in 11,500 files.
 */
import { cpSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { writeBundle } from "../bundle/bundle.ts";
import { bundleCli, packages } from "../bundle/cli.ts";

const root = join(import.meta.dirname, "../..");

const [out, ...rest] = process.argv.slice(2);
if (out === undefined || rest.length > 0) throw new Error("usage: node infra/image/bundle.ts OUT");
const folder = resolve(out);
const bundle = await bundleCli();
writeBundle(folder, bundle);
for (const name of packages)
  cpSync(join(root, "node_modules", name), join(folder, "node_modules", name), { recursive: true });
writeFileSync(join(folder, "package.json"), '{ "type": "module" }\n');
const bytes = [...bundle.files.values()].reduce((sum, file) => sum + file.length, 0);
process.stdout.write(`${folder}: ${bundle.files.size} files, ${Math.ceil(bytes / 1024)} KiB\n`);
