import { expect, test } from "vitest";
import { flyway } from "../support/peer.ts";
import { needs } from "../support/parts.ts";
import { makeSite } from "./site.ts";

needs("flyway");

test("Flyway's checksums are compared, and its repeatable scripts not run again where their text is the same", async () => {
  const view = "CREATE OR REPLACE VIEW v AS SELECT 1 AS one;\n";
  const files = {
    "V1__a.sql": "CREATE TABLE a (id int); -- ${flyway:filename}\n",
    "V2__b.sql": "CREATE TABLE b (id int);\n",
    "R__v.sql": view,
    "R__w.sql": view.replace("VIEW v", "VIEW w"),
  };
  const site = await makeSite(files, { format: "flyway" });
  expect(await flyway(site, "migrate")).toMatchObject({ code: 0 });

  await site.write({
    "V2__b.sql": "CREATE TABLE b (id bigint);\n",
    "R__w.sql": `-- new\n${files["R__w.sql"]}`,
  });
  await expect(site.adopt()).rejects.toMatchObject({
    code: "ADOPTION",
    message: expect.stringContaining('"V2__b.sql" is not what was applied'),
    hint: expect.stringContaining("--ignore-checksums"),
  });
  expect((await site.preview({ ignoresChecksums: true })).finding.applied).toMatchObject([
    { assumed: null },
    { assumed: expect.stringContaining("the file has") },
  ]);

  await site.write({
    "V2__b.sql": files["V2__b.sql"],
    "V3__c.sql": "CREATE TABLE c (id int); -- ${flyway:filename}\n",
    "V4__nothing.sql": "",
  });
  const { changes } = await site.adopt({ keepsInStep: true });
  expect(changes.map(({ migration }) => migration.path)).toEqual(["V1__a.sql", "V2__b.sql", "R__v.sql"]);
  const { done } = await site.run();
  expect(done.map(({ path }) => path)).toEqual(["V3__c.sql", "V4__nothing.sql", "R__w.sql"]);
  // Flyway finds nothing to do, and nothing that is not as it would have it.
  const rows = () => site.database.query("select count(*)::int from flyway_schema_history");
  const before = await rows();
  expect(await flyway(site, "migrate")).toMatchObject({ code: 0 });
  expect(await flyway(site, "validate")).toMatchObject({ code: 0 });
  expect(await rows()).toEqual(before);
});
