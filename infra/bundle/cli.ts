/**
 * Makes the command line as npm and the container image have it: `node infra/bundle/cli.ts OUT` writes `cli.js` and the
 * files that it loads when a verb needs them into the folder OUT. Run in a checkout.
 *
 * As npm installs it, with its packages, it would be thousands of files, and reading those half of the time that a start
 * takes.
 */
import { resolve } from "node:path";
import { bundle, writeBundle, type Bundle } from "./bundle.ts";

/** The parser of PostgreSQL is WebAssembly beside its script: it stays a package. */
export const packages = ["libpg-query"] as const;

/** What is loaded where it is installed: the compiler of `publish`, keys in AWS's KMS, and the native part of `pg`. */
const absent = ["esbuild", "@aws-sdk/client-kms", "pg-native"];

/** The ways through it that are taken most. */
const groups = [
  { name: "start", test: /\/src\/(?:cli\/(?:main|interrupt|terminal)|bin\/config|build)\.ts$/ },
  // What is needed to ask bucket and database, which answer while the run itself is loaded.
  {
    name: "open",
    test: /\/src\/(?:together|cli\/command\/up|bin\/(?:wire|open-target)|run\/look|driver\/[\w-]+|history\/[\w-]+|migration\/syntax-message|source\/(?!s3|gcs|folder|make-folders|at-once)[\w-]+|release\/(?:signed|trust\/trust-file))\.ts$/,
  },
  {
    name: "run",
    test: /\/src\/(?:runner|(?:run|status)\/[\w-]+|cli\/(?:reporter|command\/(?:init|status|wait)))\.ts$/,
  },
  // What most runs, which find nothing to do, have no need of.
  { name: "execute", test: /\/src\/release\/fetch-signed\.ts$/ },
  { name: "language", test: /\/src\/migration\/[\w-]+\.ts$/ },
  { name: "postgres", test: /\/src\/driver\/postgres\/postgres\.ts$/ },
  { name: "pg", test: /\/src\/driver\/postgres\/clients\.ts$/ },
  { name: "postgres-lease", test: /\/src\/driver\/postgres\/under-lease\.ts$/ },
  { name: "mongodb", test: /\/src\/driver\/mongodb\/mongodb\.ts$/ },
  { name: "s3", test: /\/src\/source\/s3\.ts$/ },
  { name: "gcs", test: /\/src\/source\/gcs\.ts$/ },
  { name: "config", test: /\/src\/(?:bin\/config-(?:file|schema)|report\/[\w-]+|notify\/notification)\.ts$/ },
  { name: "server", test: /\/src\/bin\/server\.ts$/ },
];

/** Bundles the command line. Writes nothing. */
export function bundleCli(): Promise<Bundle> {
  return bundle({
    entry: "src/bin/cli.ts",
    name: "cli.js",
    external: [...packages, ...absent],
    groups,
    keepsNames: true,
  });
}

if (import.meta.main) {
  const [out, ...rest] = process.argv.slice(2);
  if (out === undefined || rest.length > 0) {
    process.stderr.write("usage: node infra/bundle/cli.ts OUT\n");
    process.exitCode = 2;
  } else {
    writeBundle(resolve(out), await bundleCli());
  }
}
