import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { dbmate } from "../../../src/migration/format/dbmate.ts";
import { createDatabase } from "../../support/database.ts";
import { needs } from "../../support/parts.ts";
import { dbmate as runDbmate, succeeded } from "../../support/peer.ts";
import { fileVectors, testBothWays } from "./both-ways.ts";
import { failFolder, goodFolder, readVector, vectorNames } from "./format-vector.ts";

describe("dbmate's format", () => {
  testBothWays("dbmate", () => dbmate);
});

describe("dbmate itself", () => {
  needs("dbmate");

  test("takes and refuses the files as the vectors say", async () => {
    const database = await createDatabase();
    const folder = await scratch();
    for (const [i, { name, text, dbmate: expected }] of fileVectors("dbmate").entries()) {
      await writeFile(path.join(folder, "1_a.sql"), text);
      const { code } = await runDbmate(
        { url: database.url, folder },
        "--migrations-table",
        `t${i}`,
        "migrate",
      );
      expect([name, code === 0 ? "takes it" : "refuses it"]).toEqual([name, expected]);
    }
  });

  test("runs every folder that is taken in the same order, and the others in the order of which we warn", async () => {
    const database = await createDatabase();
    await database.query("create table log (at serial, name text)");
    const order = async (names: readonly string[]): Promise<readonly unknown[]> => {
      const folder = await scratch();
      for (const name of names) {
        const text = `-- migrate:up\ninsert into log (name) values ('${name}');\n-- migrate:down\n`;
        await writeFile(path.join(folder, name), text);
      }
      await database.query("drop table if exists schema_migrations");
      await succeeded(runDbmate({ url: database.url, folder }, "migrate"));
      return (
        await database.query("with gone as (delete from log returning *) select name from gone order by at")
      ).map(({ name }) => name);
    };
    for (const name of vectorNames("dbmate", "good_")) {
      const { names, migrations } = readVector(goodFolder, "dbmate", name);
      expect([name, await order(names)]).toEqual([name, migrations.map(({ up }) => up)]);
    }
    for (const name of vectorNames("dbmate", "fail_")) {
      const { names, code } = readVector(failFolder, "dbmate", name);
      if (code === "FORMAT") expect([name, await order(names)]).toEqual([name, names.toSorted()]);
    }
  });
});

async function scratch(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "dbmate-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  return folder;
}
