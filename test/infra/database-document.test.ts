import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { loadConfig } from "../../src/bin/config.ts";
import { readAccess } from "../../src/bin/open-database.ts";
import { openDriver } from "../../src/driver/open.ts";
import { parseAddress } from "../../src/driver/postgres/address.ts";
import { databaseFlags } from "../../src/cli/flags.ts";
import { folderWith } from "../bin/program.ts";

const page = readFileSync(join(import.meta.dirname, "../../infra/database.md"), "utf8");
const examples = [...page.matchAll(/^```yaml database (\S+)(?: engine=(\S+))?\n([\s\S]*?)^```$/gm)].map(
  ([, name = "", engine = "postgres", body = ""]) => ({ name, engine, body }),
);

/** What is in the files and variables that the examples name. */
const variables = { POOLER_URL: "postgres://u:p@pooler/orders", DIRECT_URL: "postgres://u:p@h/orders" };

describe("the page on databases", () => {
  test("has an example of everything that a database can be given", () => {
    expect(examples).toHaveLength(13);
    const shown = examples.map(({ body }) => body).join("\n");
    for (const key of [
      "url",
      "urlFile",
      "urlEnv",
      "urlSecret",
      "passwordSecret",
      "iam: rds",
      "iam: cloud-sql",
      "iamHost",
      "direct",
    ])
      expect(shown).toContain(key);
    for (const { name } of databaseFlags.filter((flag) => /database|password/.test(flag.name)))
      expect(page).toContain(`--${name}`);
  });

  test.for(examples)(
    "$name is a configuration that the program reads and opens",
    async ({ engine, body }) => {
      const indented = body.replace(/^/gm, "    ").trimEnd();
      const inside = await folderWith({
        "server-ca.pem": "",
        "db-url": engine === "mongodb" ? "mongodb://u:p@h/orders" : "postgres://u:p@h/orders",
      });
      const here = await folderWith({
        "lockkeeper.yaml": `version: 1
targets:
  orders:
    engine: ${engine}
    stream: orders
    source: ./releases
${indented.replace("/run/secrets/orders-db", join(inside, "db-url")).replace("/etc/lockkeeper", inside)}
`,
      });
      const settings = (await loadConfig(join(here, "lockkeeper.yaml"))).targets.get("orders");
      const database = settings?.database;
      expect(database).toBeDefined();
      if (database === undefined) return;
      const access = await readAccess(database, settings?.engine, variables);
      const driver = await openDriver(access);
      await driver.close();
      // where the URL is known before any secret is read, the driver can read it, with the token that stands for the password
      if (database.url.kind !== "text" || engine !== "postgres" || typeof access === "string") return;
      const text = database.url.url;
      const address = parseAddress(text, access.token);
      const isLocal = address.host.startsWith("/") || text.includes("sslmode=disable");
      expect(address.tls).toBe(isLocal ? "disable" : "require");
      expect(address.needsRdsRoots).toBe(body.includes(".rds.amazonaws.com"));
    },
  );
});
