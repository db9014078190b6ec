import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import * as v from "valibot";

import { atlas } from "../../src/migration/format/atlas.ts";
import { atlasSum, atlasSumFile, verifyAtlasSum } from "../../src/migration/format/atlas-sum.ts";
import { dbmate } from "../../src/migration/format/dbmate.ts";
import { flyway } from "../../src/migration/format/flyway.ts";
import { readScriptConfig } from "../../src/migration/format/flyway-script-config.ts";
import type { Format, FormatFile, FormatName } from "../../src/migration/format/format.ts";
import { golangMigrate } from "../../src/migration/format/golang-migrate.ts";
import { goose } from "../../src/migration/format/goose.ts";
import { isVersion, versionKey } from "../../src/migration/version.ts";
import { readRegistry } from "../../src/release/folder/registry-file.ts";
import { readVector, vectorNames } from "../migration/format/format-vector.ts";
import type { Subject } from "./subject.ts";

const settings = {
  engine: "postgres",
  variables: { HOME: "/root" },
  placeholders: { schema: "app" },
} as const;

const formats: Readonly<Record<FormatName, Format>> = {
  "golang-migrate": golangMigrate(settings),
  goose: goose(settings),
  dbmate,
  flyway: flyway(settings),
  atlas,
};

/** Bytes; no store and no file system has longer names. */
const maxName = 1_024;
const folderVector = v.object({ names: v.array(v.string()) });
const fileVector = v.object({ file: v.optional(v.string(), "00001_users.sql"), text: v.string() });

/** A folder as a bucket lists it, one name a line: every name is accounted for, or the folder is refused. */
function namesOf(format: Format): Subject {
  const folders = vectorNames(format.name, "good").map(
    (name) => readVector(folderVector, format.name, name).names,
  );
  return {
    name: `${format.name}-names`,
    corpus: folders.map((names) => Buffer.from(names.join("\n"))),
    words: [
      ".up.sql",
      ".down.sql",
      ".sql",
      "V1__a.sql",
      "R__a.sql",
      "U1__a.sql",
      "B1__a.sql",
      ".conf",
      "atlas.sum",
      "0",
      "_",
    ],
    read(input) {
      const names = [
        ...new Set(
          input
            .toString()
            .split("\n")
            .map((name) => name.slice(0, maxName)),
        ),
      ].filter((name) => name !== "");
      const layout = format.read(names);
      const known = new Set([
        ...layout.migrations.flatMap(({ up, down, checkpoint }) => [up, down, checkpoint]),
        ...layout.repeatable.map((entry) => entry.path),
        ...layout.companions,
        ...layout.ignored.map(({ name }) => name),
      ]);
      if (names.some((name) => !known.has(name))) return "a name that is passed over in silence";
      const keys = layout.migrations.map(({ version }) => versionKey(version));
      return new Set(keys).size === keys.length ? undefined : "a version twice";
    },
  };
}

/** One file: its name in the first line. */
function bodiesOf(format: Format): Subject {
  const vectors = vectorNames(format.name, "body").map((name) => readVector(fileVector, format.name, name));
  return {
    name: `${format.name}-file`,
    corpus: [{ file: "1_users.up.sql", text: "CREATE TABLE users ();\n" }, ...vectors].map(({ file, text }) =>
      Buffer.from(`${file}\n${text}`),
    ),
    words: [
      "-- +goose Up\n",
      "-- +goose Down\n",
      "-- +goose StatementBegin\n",
      "-- +goose ENVSUB ON\n",
      "-- migrate:up\n",
      "-- migrate:down\n",
      "transaction:false",
      "-- atlas:txmode none\n",
      "-- atlas:delimiter \\n\n",
      "-- atlas:txtar\n",
      "-- checks.sql --\n",
      "${schema}",
      "${flyway:timestamp}",
      "-- lockkeeper: tx=none\n",
    ],
    async read(input) {
      const end = input.indexOf("\n");
      const name = input.subarray(0, Math.min(maxName, Math.max(0, end))).toString();
      const bytes = input.subarray(end + 1);
      const { up, down } = await format.parse({ name, bytes }, new Map());
      return up === undefined && down === undefined ? "a file with neither way in it" : undefined;
    },
  };
}

const atlasFolder = path.join(import.meta.dirname, "../peers/folder/atlas");
const atlasFiles: readonly FormatFile[] = readdirSync(atlasFolder)
  .filter((name) => name.endsWith(".sql"))
  .map((name) => ({ name, bytes: readFileSync(path.join(atlasFolder, name)) }));
const sums = atlasSum(atlasFiles);

const registry = `service: orders
database: orders-db
migrations:
  - version: "0007"
    description: drops a column
    breaking: true
    dependencies:
      - service: billing
        min-version: "12"
`;

/** What reads folders of migrations: five tools' names and files, Atlas's sums, the registry of services. */
export const folderSubjects: readonly Subject[] = [
  ...Object.values(formats).flatMap((format) => [namesOf(format), bodiesOf(format)]),
  {
    name: "atlas-sum",
    corpus: [Buffer.from(sums)],
    words: ["h1:", atlasSumFile],
    read(input) {
      const text = input.toString();
      verifyAtlasSum(atlasFiles, text);
      // only the first line counts, as in Atlas, which also takes it without its mark: it is a sum over the others as they are computed here
      const total = sums.slice(0, 40).replace("h1:", "");
      return text.replace(/^h1:/, "").startsWith(total) ? undefined : "another sum than that of the files";
    },
  },
  {
    name: "flyway-conf",
    corpus: [
      Buffer.from("executeInTransaction=false\n"),
      Buffer.from("# a\nplaceholderReplacement = false\n"),
    ],
    words: ["executeInTransaction", "\\u0065", "shouldExecute", "encoding"],
    read(input) {
      readScriptConfig(input, "V1__a.sql.conf");
      return undefined;
    },
  },
  {
    name: "registry",
    // the library makes an error with its stack of each of thousands of problems; it is for a file that a person wrote
    maxBytes: 16_384,
    maxMs: 1_000,
    corpus: [Buffer.from(registry)],
    words: ["min-version", "minVersion", "&a", "*a", "<<", "? ", "!!map", "- ", "yes"],
    async read(input) {
      const { migrations } = await readRegistry(input, ["0007", "8"]);
      return migrations.every(({ version }) => isVersion(version)) ? undefined : "no version";
    },
  },
];
