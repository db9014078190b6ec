import { describe, expect, test } from "vitest";

import { detectedFormat } from "../../src/migration/format/choose-format.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import { assertSameFiles } from "../../src/release/folder/same-files.ts";
import { readStoredRelease } from "../../src/release/review/stored-release.ts";
import { makeKey, never, publishTo, tempFolder } from "../support/release.ts";
import type { Files } from "../support/release.ts";

const key = makeKey();
const format = detectedFormat({ engine: "postgres" });
const files = {
  "1_users.up.sql": "create table users (id int);",
  "1_users.down.sql": "drop table users;",
  "3_late.up.sql": "select 3;",
};

/** What was published of these files, and how it compares with others. */
async function published(...versions: readonly Files[]) {
  await using bucket = await tempFolder();
  let digest = "";
  for (const version of versions)
    ({ digest } = await publishTo(bucket.source, version, { keys: [key], allowLate: true }));
  const { manifest } = await readStoredRelease(bucket.source, digest, never);
  const compare = async (others: Files, changed: Manifest = manifest): Promise<void> => {
    await using folder = await tempFolder(others);
    await assertSameFiles(changed, { folder: folder.source, format }, never);
  };
  return { manifest, compare };
}

describe("a folder that was reviewed", () => {
  test("is what a release was made of, also where a migration came late", async () => {
    const later = { ...files, "2_email.up.sql": "alter table users add email text;" };
    const { manifest, compare } = await published(files, later);
    expect(manifest.migrations.map(({ version }) => version)).toEqual(["1", "3", "2"]);
    await compare(later);
    // another parser has found the same
    await compare(later, { ...manifest, parser: "another" });
  });

  test("is told apart by every file that is another, missing or too many", async () => {
    const { compare } = await published(files);
    const { "1_users.down.sql": _, ...withoutDown } = files;
    const { "3_late.up.sql": __, ...withoutLate } = files;
    const others: readonly Files[] = [
      { ...files, "1_users.up.sql": "create table users (id bigint);" },
      { ...files, "1_users.down.sql": "drop table if exists users;" },
      { ...files, "4_more.up.sql": "select 4;" },
      withoutDown,
      withoutLate,
    ];
    for (const other of others) {
      await expect(compare(other)).rejects.toMatchObject({
        code: "CHANGED_FILE",
        hint: expect.stringContaining("do not sign") as string,
      });
    }
  });

  test("tells also what the first signer says of a body, and the body does not bear out", async () => {
    const { manifest, compare } = await published({ "1_t.up.sql": "set search_path = x; select 1;" });
    expect(manifest.migrations[0]?.alone).toBe(false);
    const lying = {
      ...manifest,
      migrations: manifest.migrations.map((one) => Object.assign({}, one, { alone: true })),
    };
    for (const parser of [manifest.parser, "one that nobody knows"])
      await expect(
        compare({ "1_t.up.sql": "set search_path = x; select 1;" }, { ...lying, parser }),
      ).rejects.toMatchObject({ code: "CHANGED_FILE", fields: { parser } });
  });
});
