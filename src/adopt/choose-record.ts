import { RunnerError } from "../error.ts";
import { placeName, type ForeignPlace, type ForeignTable } from "../history/foreign.ts";
import { recognize } from "./record/formats.ts";

/** Which record is meant, as a person says it. */
export interface RecordWish {
  /** a tool, or a table that was found */
  readonly from: string | undefined;
  /** `schema.table` of a record that was renamed */
  readonly table: string | undefined;
}

/** A record, and the table that it is. */
export interface ChosenRecord {
  readonly place: ForeignPlace;
  readonly table: ForeignTable;
}

/**
 * The one record that is meant among the tables that were found.
 *
 * @throws RunnerError `ADOPTION` - there is none, or more than one
 */
export function chooseRecord(tables: readonly ForeignTable[], wish: RecordWish): ChosenRecord {
  const known = tables.flatMap((table): readonly ChosenRecord[] => {
    const format = recognize(table);
    return format === undefined
      ? []
      : [{ place: { tool: format.tool, schema: table.schema, table: table.table }, table }];
  });
  const meant = known.filter(({ place }) => isMeant(place, wish.from));
  const [first, second] = meant;
  if (first === undefined) throw nothingFound(tables, known, wish);
  if (second !== undefined) throw ambiguous(meant);
  return first;
}

function isMeant(place: ForeignPlace, from: string | undefined): boolean {
  return from === undefined || [place.tool, place.table, placeName(place)].includes(from);
}

function nothingFound(
  tables: readonly ForeignTable[],
  known: readonly ChosenRecord[],
  { from, table }: RecordWish,
): RunnerError {
  if (known.length > 0) {
    return new RunnerError("ADOPTION", `no record of "${from ?? ""}" was found, only ${listed(known)}`, {
      hint: "name one of those with --from, or another table with --table schema.name",
    });
  }
  const [odd] = tables;
  if (odd !== undefined) {
    const columns = odd.columns.map(({ name, type }) => `${name} ${type}`).join(", ");
    return new RunnerError(
      "ADOPTION",
      `${placeName(odd)} has the columns of no tool that lockkeeper knows (${columns})`,
      {
        hint: "name the right table with --table schema.name, or say what is there with lockkeeper baseline",
      },
    );
  }
  const what = table === undefined ? "no other tool's table in the search path" : `no table "${table}"`;
  return new RunnerError("ADOPTION", `the database has ${what}`, {
    hint: "name the table with --table schema.name, or check the database URL",
  });
}

function ambiguous(records: readonly ChosenRecord[]): RunnerError {
  return new RunnerError("ADOPTION", `the database has the records of several tools: ${listed(records)}`, {
    hint: "say with --from which one is true, by the tool or the table",
    fields: { found: records.length },
  });
}

function listed(records: readonly ChosenRecord[]): string {
  return records.map(({ place }) => `${placeName(place)} (${place.tool})`).join(", ");
}
