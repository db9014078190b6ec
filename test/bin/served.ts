import { join } from "node:path";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { folderSource, makeKeys, publishTo, type Files } from "../support/release.ts";
import { createIssuer, type TestIssuer } from "../support/token.ts";
import { folderWith } from "./program.ts";

/** A folder that a server can be started in. */
export interface Served {
  readonly folder: string;
  /** the words that start it */
  readonly argv: readonly string[];
  readonly database: TestDatabase;
  /** whose caller `ci` may apply, and look */
  readonly issuer: TestIssuer;
  publish(files: Files): Promise<unknown>;
}

/** The target `orders`: a database of its own, a folder as its bucket. `settings` are added to the configuration. */
export async function servedFolder(settings = ""): Promise<Served> {
  const database = await createDatabase();
  const issuer = await createIssuer();
  const { key } = makeKeys();
  const folder = await folderWith({
    "jwks.json": issuer.jwks,
    "policy.json": issuer.policy("orders"),
    "alice.pub": key.publicPem,
    "db-url": database.url,
    "bucket/.keep": "",
    "lockkeeper.yaml": `version: 1
policy: policy.json
${settings}
trust: { team: { keys: [alice.pub] } }
targets:
  orders: { engine: postgres, stream: orders, source: ./bucket, trust: team, database: { urlFile: db-url } }
`,
  });
  const source = folderSource(join(folder, "bucket"));
  return {
    folder,
    argv: ["serve", "--config", join(folder, "lockkeeper.yaml"), "--listen", "127.0.0.1:0"],
    database,
    issuer,
    publish: (files) => publishTo(source, files, { keys: [key] }),
  };
}
