import { createHash } from "node:crypto";

import { RunnerError } from "../../../error.ts";
import { placeName, type ForeignPlace } from "../../../history/foreign.ts";
import { bareName } from "../../../migration/bare-name.ts";
import { flywayChecksum } from "../../../migration/format/flyway-checksum.ts";
import type { Direction } from "../../../migration/migration.ts";
import { isVersion } from "../../../migration/version.ts";
import type { DoneStep } from "../../foreign.ts";
import type { LeaseKey } from "../lease.ts";
import { identifier, literal, type TableNames } from "../tables.ts";

/** What an entry says of a migration that was applied or taken back. */
interface WrittenBack {
  readonly stream: string;
  readonly seq: number;
  readonly version: string;
  /** of the up file */
  readonly path: string;
  readonly direction: Direction;
  /** of the up file; absent where only its entry is at hand */
  readonly bytes: Uint8Array | undefined;
  /** of the up file, where the folder is Flyway's */
  readonly crc32: number | undefined;
  /** statements of the body */
  readonly statements: number;
  /** SQL expression: milliseconds */
  readonly durationMs: string;
}

/** What {@link bareName} takes off, as PostgreSQL writes it. */
const nameEnd = String.raw`(?:\.(?:up|down))?\.[A-Za-z]+$`;

/** The statements that go beside the entry of a step, and of those that it covers; none where no other tool is to know. */
export function writeBackStep(
  {
    t,
    key,
    inStep,
  }: { readonly t: TableNames; readonly key: LeaseKey; readonly inStep: ForeignPlace | null },
  { migration, direction, covers = [] }: DoneStep,
  facts: Pick<WrittenBack, "bytes" | "statements" | "durationMs">,
): readonly string[] {
  if (inStep === null) return [];
  const { stream } = key;
  const covered = covers.map(({ seq, version, path, crc32 }) => ({
    seq,
    version,
    path,
    crc32,
    ...facts,
    bytes: undefined,
  }));
  const { seq, version, path, crc32 } = migration;
  return [...covered, { seq, version, path, crc32, ...facts }].flatMap((done) =>
    writeBack(t, inStep, { ...done, stream, direction }),
  );
}

/**
 * Statements that make another tool's record say what the entry beside them says. They belong into its transaction, and
 * may be sent again, as the entry may. Names are all qualified: `search_path` is `pg_catalog` there.
 *
 * @throws RunnerError `ADOPTION` - the tool's record cannot hold such a version
 */
function writeBack(t: TableNames, place: ForeignPlace, done: WrittenBack): readonly string[] {
  const x = `${identifier(place.schema)}.${identifier(place.table)}`;
  const isUp = done.direction === "up";
  // What has no place in the sequence is known to no other tool but Flyway.
  if (done.seq === 0) return place.tool === "flyway" && isUp ? [flywayRow(x, done)] : [];
  switch (place.tool) {
    case "golang-migrate": {
      const number = numberOf(place, done);
      return isUp ? raiseNumber(x, number) : lowerNumber(t, x, done);
    }
    case "goose": {
      const number = numberOf(place, done);
      const latest = `SELECT is_applied FROM ${x} WHERE version_id = ${number} ORDER BY id DESC LIMIT 1`;
      return isUp
        ? [
            `INSERT INTO ${x} (version_id, is_applied) SELECT ${number}, true WHERE NOT coalesce((${latest}), false)`,
          ]
        : [`DELETE FROM ${x} WHERE version_id = ${number}`];
    }
    case "dbmate":
    case "rails": {
      const same = `ltrim(version, '0') = ltrim(${literal(done.version)}, '0')`;
      return insertOrDelete(x, isUp, same, { version: literal(done.version) });
    }
    case "node-pg-migrate": {
      const name = literal(bareName(done.path));
      return insertOrDelete(x, isUp, `name = ${name}`, { name, run_on: "pg_catalog.now()" });
    }
    case "umzug": {
      const bare = literal(bareName(done.path));
      const end = literal(nameEnd);
      const same = `regexp_replace(name, ${end}, '') = ${bare}`;
      // Its folder is another than ours: its files are called as it has called those before.
      const theirs = `(SELECT substring(name FROM ${end}) FROM ${x} ORDER BY name DESC LIMIT 1)`;
      const ours = literal(done.path.slice(bareName(done.path).length));
      return insertOrDelete(x, isUp, same, { name: `${bare} || coalesce(${theirs}, ${ours})` });
    }
    case "atlas":
      return insertOrDelete(x, isUp, `version = ${literal(done.version)}`, {
        version: literal(done.version),
        description: literal(bareName(done.path).replace(/^[^_]*_?/, "")),
        type: "2",
        applied: String(done.statements),
        total: String(done.statements),
        executed_at: "pg_catalog.now()",
        execution_time: `((${done.durationMs}) * 1000000)::bigint`,
        // Atlas reads it again only of a file that it left half done.
        hash: literal(atlasHash(done)),
        operator_version: "'lockkeeper'",
      });
    case "flyway":
      return isUp ? [flywayRow(x, done)] : [`DELETE FROM ${x} WHERE version = ${literal(done.version)}`];
    case "migrate-mongo":
      return [];
  }
}

function raiseNumber(x: string, number: string): readonly string[] {
  return [
    `UPDATE ${x} SET version = greatest(version, ${number}), dirty = false`,
    `INSERT INTO ${x} (version, dirty) SELECT ${number}, false WHERE NOT EXISTS (SELECT FROM ${x})`,
  ];
}

/** The highest version that is left: a late one may have been applied after it. */
function lowerNumber(t: TableNames, x: string, { stream, seq }: WrittenBack): readonly string[] {
  const left = `SELECT DISTINCT ON (seq) version FROM ${t.history} WHERE stream = ${literal(stream)} AND seq BETWEEN 1 AND ${seq - 1}
 AND direction = 'up' AND status = 'done' ORDER BY seq, id DESC`;
  return [
    `DELETE FROM ${x}`,
    `INSERT INTO ${x} (version, dirty) SELECT top, false FROM (SELECT max(version::numeric) AS top FROM (${left}) l) m WHERE top IS NOT NULL`,
  ];
}

function insertOrDelete(
  x: string,
  isUp: boolean,
  same: string,
  values: Readonly<Record<string, string>>,
): readonly string[] {
  return [isUp ? insertUnless(x, same, values) : `DELETE FROM ${x} WHERE ${same}`];
}

function insertUnless(x: string, same: string, values: Readonly<Record<string, string>>): string {
  const names = Object.keys(values).map(identifier).join(", ");
  return `INSERT INTO ${x} (${names}) SELECT ${Object.values(values).join(", ")} WHERE NOT EXISTS (SELECT FROM ${x} WHERE ${same})`;
}

function numberOf(place: ForeignPlace, { version, path }: WrittenBack): string {
  if (/^[0-9]+$/.test(version)) return version.replace(/^0+(?=.)/, "");
  const shape = isVersion(version) ? "a version with dots" : "no number";
  throw new RunnerError(
    "ADOPTION",
    `"${path}" has ${shape} for its version, which ${place.tool} cannot hold in ${placeName(place)}`,
    {
      hint: "name the file by a whole number, or end that with lockkeeper adopt --keep-in-step off",
      fields: { migration: path, version, tool: place.tool },
    },
  );
}

/** A repeatable one has no version, and a row for each time; its newest says which text was applied. */
function flywayRow(x: string, { seq, version, path, bytes, crc32, durationMs }: WrittenBack): string {
  const script = literal(path);
  const known = crc32 ?? (bytes && flywayChecksum(bytes));
  const checksum = known === undefined ? "NULL::int" : String(known | 0);
  const newest = `(SELECT max(installed_rank) FROM ${x} WHERE script = ${script})`;
  const same =
    seq === 0
      ? `script = ${script} AND checksum = ${checksum} AND installed_rank = ${newest} AND success`
      : `version = ${literal(version)} AND success`;
  return insertUnless(x, same, {
    installed_rank: `(SELECT coalesce(max(installed_rank), 0) + 1 FROM ${x})`,
    version: seq === 0 ? "NULL" : literal(version),
    description: literal(flywayDescription(path)),
    type: "'SQL'",
    script,
    checksum,
    installed_by: "current_user",
    execution_time: `(${durationMs})::int`,
    success: "true",
  });
}

/** `add users` of `V1_2__add_users.sql`, as Flyway compares it with the file's name. */
function flywayDescription(path: string): string {
  return bareName(path)
    .replace(/^.*?__|^[0-9]+_/, "")
    .replaceAll("_", " ");
}

function atlasHash({ path, bytes }: WrittenBack): string {
  if (bytes === undefined) return "";
  return createHash("sha256").update(path).update(bytes).digest("base64");
}
