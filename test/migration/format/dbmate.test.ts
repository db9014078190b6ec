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
    const { url } = await createDatabase();
    const vectors = fileVectors("dbmate");
    const together = await scratch();
    for (const [i, { text }] of vectors.filter((vector) => vector.dbmate === "takes it").entries())
      await writeFile(path.join(together, `${i + 100}_x.sql`), text);
    await succeeded(runDbmate({ url, folder: together }, "migrate"));

    const folder = await scratch();
    for (const { name, text } of vectors.filter((vector) => vector.dbmate === "refuses it")) {
      await writeFile(path.join(folder, "1_a.sql"), text);
      const { code } = await runDbmate(
        { url, folder },
        "--migrations-table",
        `t_${name.slice(0, -5)}`,
        "migrate",
      );
      expect([name, code]).toEqual([name, 2]);
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
