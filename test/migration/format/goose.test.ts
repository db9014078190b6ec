import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { describe, expect, onTestFinished, test } from "vitest";
import { analyzeSql } from "../../../src/migration/analyze.ts";
import { goose } from "../../../src/migration/format/goose.ts";
import { readGooseFile } from "../../../src/migration/format/goose-file.ts";
import { createDatabase } from "../../support/database.ts";
import { needs, part } from "../../support/parts.ts";
import { goose as runGoose, succeeded } from "../../support/peer.ts";
import { fileVectors, testBothWays, type FileVector } from "./both-ways.ts";
import { failFolder, goodFolder, readVector, refusalOf, vectorNames } from "./format-vector.ts";

const run = promisify(execFile);
const format = goose({ engine: "postgres", variables: {}, placeholders: {} });

describe("goose's format", () => {
  testBothWays("goose", (variables = {}) => goose({ engine: "postgres", variables, placeholders: {} }));

  test("counts the statements of each way as the vectors say of goose itself", () => {
    for (const { name, text, variables, goose: theirs, code } of fileVectors("goose")) {
      if (theirs === undefined || code !== undefined) continue;
      const { up, down, isInTransaction } = readGooseFile(text, name, variables);
      const ours = {
        transaction: isInTransaction,
        up: up.statements.length,
        down: down?.statements.length ?? 0,
      };
      expect([name, ours]).toEqual([name, theirs]);
    }
  });

  test("takes what is in its files apart as PostgreSQL does", async () => {
    const text = [
      "-- +goose NO TRANSACTION",
      "-- +goose Up",
      "-- +goose StatementBegin",
      "CREATE TABLE a (id int); CREATE TABLE b (id int)",
      "-- +goose StatementEnd",
      "CREATE INDEX CONCURRENTLY a_id ON a (id);",
      "-- +goose Down",
    ];
    const { up, down } = await format.parse(
      { name: "1_a.sql", bytes: Buffer.from(text.join("\r\n")) },
      new Map(),
    );
    const bytes = up?.bytes ?? Buffer.of();
    const { tx, statements = [] } = await analyzeSql(bytes, "1_a.sql", up?.tx);
    expect(tx).toBe("none");
    expect(
      statements.map(({ offset, length }) => bytes.toString("utf8", offset, offset + length).trim()),
    ).toEqual([
      expect.stringContaining("CREATE TABLE a (id int)"),
      "CREATE TABLE b (id int)",
      expect.stringContaining("CREATE INDEX CONCURRENTLY a_id ON a (id)"),
    ]);
    await expect(analyzeSql(down?.bytes ?? Buffer.of(), "1_a.sql", down?.tx)).resolves.toMatchObject({
      isEmpty: false,
      statements: [],
    });
  });

  test("gives nobody's environment to a folder whose writers are not to see it", async () => {
    const bytes = Buffer.from("-- +goose ENVSUB ON\n-- +goose Up\nSELECT '$HOME';\n");
    const closed = goose({ engine: "postgres", variables: undefined, placeholders: {} });
    const parsed = new Promise((resolve) => resolve(closed.parse({ name: "1_a.sql", bytes }, new Map())));
    await expect(parsed).rejects.toMatchObject({ code: "FORMAT", fields: { line: 1 } });
  });

  test("refuses variables within variables that nobody could read", async () => {
    const value = "${A:-".repeat(5_000) + "}".repeat(5_000);
    const bytes = Buffer.from(`-- +goose ENVSUB ON\n-- +goose Up\nSELECT '${value}';\n`);
    const error = await refusalOf(() => format.parse({ name: "1_a.sql", bytes }, new Map()));
    expect(error).toMatchObject({ code: "FORMAT", fields: { line: 3 } });
  });

  test("reads a long function without StatementBegin, cut at each of its lines, in a moment", async () => {
    const lines = [
      "-- +goose Up",
      "DO $$",
      "BEGIN",
      ...Array<string>(50_000).fill("PERFORM 1;"),
      "END;",
      "$$;",
    ];
    const { warnings } = await format.parse(
      { name: "1_a.sql", bytes: Buffer.from(lines.join("\n")) },
      new Map(),
    );
    expect(warnings).toEqual(["1_a.sql:4: goose would end a statement here, so it cannot run this file"]);
  });
});

describe("goose itself", () => {
  needs("goose");

  test("says of every file what the vectors say", async () => {
    const vectors = fileVectors("goose");
    const taken = vectors.filter((vector) => vector.goose !== undefined);
    for (const variables of new Set(taken.map((vector) => JSON.stringify(vector.variables)))) {
      // one call for all with the same variables
      const together = taken.filter((vector) => JSON.stringify(vector.variables) === variables);
      const said = await validate(together);
      expect(said).toEqual(together.map(({ name, goose: expected }) => ({ name, ...expected })));
    }
    for (const vector of vectors.filter(({ goose: expected }) => expected === undefined))
      expect([vector.name, await validate([vector])]).toEqual([vector.name, undefined]);
  });

  test("runs every folder that is taken in the same order, and refuses those of which we say so", async () => {
    const database = await createDatabase();
    for (const [i, name] of vectorNames("goose", "good_").entries()) {
      const { names, migrations } = readVector(goodFolder, "goose", name);
      const site = { url: database.url, folder: await filled(names) };
      await succeeded(runGoose(site, "-table", `t${i}`, "up"));
      const rows = await database.query(
        `select version_id::text v from t${i} where version_id > 0 order by id`,
      );
      expect([name, rows.map(({ v }) => v)]).toEqual([
        name,
        migrations.map(({ version }) => version.replace(/^0+/, "")),
      ]);
    }
    for (const name of vectorNames("goose", "fail_")) {
      const { names, mentions, code } = readVector(failFolder, "goose", name);
      const isRefused =
        code === "DUPLICATE_VERSION" || mentions.some((mention) => mention.includes("goose refuses"));
      if (!isRefused) continue;
      const { code: exit } = await runGoose({ url: database.url, folder: await filled(names) }, "up");
      expect([name, exit]).not.toEqual([name, 0]);
    }
  });
});

/** What goose counts in each file; undefined where it refuses one of them. */
async function validate(vectors: readonly FileVector[]) {
  const folder = await scratch();
  for (const [i, { text }] of vectors.entries()) await writeFile(path.join(folder, `${i + 100}_x.sql`), text);
  const env = vectors[0]?.variables ?? {};
  return run(part("goose"), ["-dir", folder, "-v", "validate"], { env }).then(
    ({ stdout }) =>
      [...stdout.matchAll(/^sql\s+(\S)\s+([0-9]+)\s+([0-9]+)/gm)].map(([, tx, up, down], i) => ({
        name: vectors[i]?.name,
        transaction: tx === "✔",
        up: Number(up),
        down: Number(down),
      })),
    () => undefined,
  );
}

async function scratch(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "goose-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  return folder;
}

async function filled(names: readonly string[]): Promise<string> {
  const folder = path.join(await scratch(), "migrations");
  await mkdir(folder);
  for (const name of names) await writeFile(path.join(folder, name), "-- +goose Up\nSELECT 1;\n");
  return folder;
}
