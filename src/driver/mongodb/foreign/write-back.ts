import { Long, type ClientSession, type Collection, type Document } from "mongodb";

import { RunnerError } from "../../../error.ts";
import { appliedEntries } from "../../../history/applied.ts";
import { placeName, type ForeignPlace } from "../../../history/foreign.ts";
import { bareName } from "../../../migration/bare-name.ts";
import type { DoneStep } from "../../foreign.ts";
import type { Bench } from "../bench.ts";
import { answerMs } from "../database.ts";
import { readHistory, withSession } from "../history.ts";

/** What golang-migrate writes where nothing is applied. */
const noVersion = Long.fromInt(-1);

/**
 * Makes another tool's record say what the entry beside it says: in its transaction, where the server has them, else
 * before the entry is done, because a second time changes nothing. Does nothing where no other tool is to know.
 *
 * @throws RunnerError `ADOPTION` - the record cannot hold such a version
 */
export async function writeBack(
  bench: Pick<Bench, "database" | "inStep" | "key" | "own">,
  { migration, direction, covers = [] }: DoneStep,
  session: ClientSession | undefined,
): Promise<void> {
  const { inStep } = bench;
  if (inStep === null || migration.seq === 0) return;
  const records = bench.database.db.collection(inStep.table);
  for (const one of [...covers, migration]) {
    await bench.own(session, () => writeOne(bench, { inStep, records, session }, one, direction));
  }
}

interface Place {
  readonly inStep: ForeignPlace;
  readonly records: Collection;
  readonly session: ClientSession | undefined;
}

async function writeOne(
  bench: Parameters<typeof writeBack>[0],
  place: Place,
  { seq, version, path }: DoneStep["migration"],
  direction: DoneStep["direction"],
): Promise<void> {
  const isUp = direction === "up";
  switch (place.inStep.tool) {
    case "golang-migrate":
      return setNumber(
        place,
        isUp ? await highest(place, numberOf(place, version, path)) : await below(bench, place, seq),
      );
    case "migrate-mongo":
      return setName(place, "fileName", path, isUp, { appliedAt: new Date(), migrationBlock: Date.now() });
    case "umzug":
      return setName(place, "migrationName", path, isUp, {});
    default:
      return undefined;
  }
}

/** In place, where golang-migrate drops the collection and makes it anew: nobody ever sees it without its document. */
async function setNumber({ records, session }: Place, version: Long): Promise<void> {
  // What fits is a 32-bit integer, as golang-migrate's own driver writes it.
  const value = version.equals(version.toInt()) ? version.toInt() : version;
  await records.updateOne(
    {},
    { $set: { version: value, dirty: false } },
    { upsert: true, maxTimeMS: answerMs, ...withSession(session) },
  );
}

/** A late version leaves the number as it is. */
async function highest({ records, session }: Place, version: Long): Promise<Long> {
  const found = await records.findOne({}, { maxTimeMS: answerMs, ...withSession(session) });
  const there: unknown = found?.["version"];
  const now = Long.isLong(there) ? there : typeof there === "number" ? Long.fromNumber(there) : noVersion;
  return now.greaterThan(version) ? now : version;
}

async function below(bench: Parameters<typeof writeBack>[0], place: Place, seq: number): Promise<Long> {
  const entries = appliedEntries(await readHistory(bench.database, bench.key().stream, {}));
  return entries
    .filter((entry) => entry.seq < seq)
    .map(({ version, path }) => numberOf(place, version, path))
    .reduce((top, version) => (version.greaterThan(top) ? version : top), noVersion);
}

function numberOf({ inStep }: Place, version: string, path: string): Long {
  if (/^[0-9]+$/.test(version) && BigInt(version) <= 0x7fff_ffff_ffff_ffffn) return Long.fromString(version);
  throw new RunnerError(
    "ADOPTION",
    `"${path}" has a version that ${inStep.tool} cannot hold in ${placeName(inStep)}`,
    {
      hint: "name the file by a whole number, or end that with lockkeeper adopt --keep-in-step off",
      fields: { migration: path, version, tool: inStep.tool },
    },
  );
}

/** Its folder is another than ours: its files are called as it has called those before. */
async function setName(
  { records, session }: Place,
  field: string,
  path: string,
  isUp: boolean,
  also: Document,
): Promise<void> {
  const options = { maxTimeMS: answerMs, ...withSession(session) };
  const found = await records.find({}, { ...options, sort: { [field]: -1 } }).toArray();
  const names = found.map((document) => String(document[field]));
  const bare = bareName(path);
  const there = names.filter((name) => bareName(name) === bare);
  if (!isUp) {
    await records.deleteMany({ [field]: { $in: there } }, options);
    return;
  }
  if (there.length > 0) return;
  const [like = path] = names;
  await records.insertOne(
    { [field]: `${bare}${like.slice(bareName(like).length)}`, ...also },
    withSession(session),
  );
}
