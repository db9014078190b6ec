import { onTestFinished } from "vitest";
import { createMongoDatabase, type MongoServer } from "../support/mongo.ts";
import { tempFolder } from "../support/release.ts";
import { siteOn } from "./site.ts";

/** What makes collection `t<n>`, and takes it away again. */
export const pair = (n: number) => ({
  [`000${n}_t${n}.up.json`]: `[{"create": "t${n}"}]`,
  [`000${n}_t${n}.down.json`]: `[{"drop": "t${n}"}]`,
});

/** A fresh database, and a folder with these files. */
export async function makeMongoSite(files: Readonly<Record<string, string>>, server?: MongoServer) {
  const folder = await tempFolder(files);
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const database = await createMongoDatabase(server === undefined ? {} : { server });
  const open = (waitMs = 30_000) => siteOn(database, folder.path, { engine: "mongodb", waitMs });
  return { site: await open(), db: database.db, open };
}
