import { describe, expect, test } from "vitest";
import { detectedFormat, namedFormat } from "../../../src/migration/format/choose-format.ts";
import { formatNames } from "../../../src/migration/format/format.ts";

const settings = { engine: "postgres", variables: {}, placeholders: {} } as const;

/** The name of the format that is chosen for files with these texts, or the error's code; which files were read on the way. */
async function chosen(files: Readonly<Record<string, string>>) {
  const read: string[] = [];
  const format = await detectedFormat(settings)({
    names: Object.keys(files),
    read: (name) => {
      read.push(name);
      return Promise.resolve(Buffer.from(files[name] ?? ""));
    },
  }).then(
    ({ name }) => name,
    (error: unknown) => Reflect.get(error as object, "code"),
  );
  return { format, read };
}

describe("a folder's format", () => {
  test.for([
    ["golang-migrate", { "000001_a.up.sql": "", "000001_a.down.sql": "" }],
    ["golang-migrate", { "1_a.up.json": "[]" }],
    ["golang-migrate", { "README.md": "" }],
    ["golang-migrate", {}],
    ["flyway", { "V1__a.sql": "" }],
    ["flyway", { "V2_1__a.sql": "", "U2_1__a.sql": "", "R__views.sql": "" }],
    ["flyway", { "R__views.sql": "" }],
    ["flyway", { "V1.2.3__a.sql": "" }],
    ["atlas", { "atlas.sum": "h1:", "20230316085611.sql": "-- +goose Up" }],
  ] as const)("is %s by the names %j alone", async ([name, files]) => {
    expect(await chosen(files)).toEqual({ format: name, read: [] });
  });

  test.for([
    ["goose", { "00001_a.sql": "-- a comment\n-- +goose Up\nSELECT 1;", "00002_b.sql": "" }],
    ["goose", { "00001_a.sql": "\ufeff-- +goose Up\nSELECT 1;" }],
    ["dbmate", { "20200101000000_a.sql": "-- migrate:up\nSELECT 1;\n-- migrate:down\n" }],
    ["dbmate", { "20200101000000_a.sql": "--migrate:up transaction:false\nSELECT 1;" }],
    ["golang-migrate", { "1_a.sql": "SELECT '-- +goose'" }],
  ] as const)("is %s by what its first numbered file holds", async ([name, files]) => {
    const { format, read } = await chosen(files);
    expect(format).toBe(name);
    expect(read).toEqual([Object.keys(files)[0]]);
  });

  test.for([
    [{ "V1__a.sql": "", "1_a.up.sql": "" }],
    [{ "atlas.sum": "", "V1__a.sql": "" }],
    [{ "1_a.sql": "-- +goose Up\n-- migrate:up" }],
  ] as const)("is asked for where the files look like those of two tools: %j", async ([files]) => {
    expect((await chosen(files)).format).toBe("FORMAT");
  });

  test("is the named one whatever the files look like", async () => {
    for (const name of formatNames) {
      const format = await namedFormat(
        name,
        settings,
      )({ names: [], read: () => Promise.reject(new Error("unread")) });
      expect(format.name).toBe(name);
    }
  });

  test("for MongoDB is golang-migrate's only", async () => {
    const open = namedFormat("goose", { ...settings, engine: "mongodb" });
    await expect(open({ names: [], read: () => Promise.reject(new Error("unread")) })).rejects.toMatchObject({
      code: "WRONG_ENGINE",
    });
  });
});
