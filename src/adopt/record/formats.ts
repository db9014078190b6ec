import type { ForeignTable } from "../../history/foreign.ts";
import { atlasRecord } from "./atlas.ts";
import { flywayRecord } from "./flyway.ts";
import { golangMigrateRecord } from "./golang-migrate.ts";
import { gooseRecord } from "./goose.ts";
import { migrateMongoRecord, nodePgMigrateRecord, umzugRecord } from "./names.ts";
import type { RecordFormat } from "./record.ts";
import { dbmateRecord, railsRecord } from "./versions.ts";

const formats: readonly RecordFormat[] = [
  golangMigrateRecord,
  gooseRecord,
  dbmateRecord,
  railsRecord,
  atlasRecord,
  flywayRecord,
  nodePgMigrateRecord,
  umzugRecord,
  migrateMongoRecord,
];

/** Whose record a table is, by its columns; undefined where it is no tool's that we know. */
export function recognize(table: ForeignTable): RecordFormat | undefined {
  return formats.find((format) => format.matches(table));
}

/** How a tool keeps its record. */
export function formatOf(tool: RecordFormat["tool"]): RecordFormat | undefined {
  return formats.find((format) => format.tool === tool);
}
