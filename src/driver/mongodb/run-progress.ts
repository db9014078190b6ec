import { answerMs, type MongoDatabase } from "./database.ts";

/** How far a run is, by the history. */
export interface CountedProgress {
  readonly applied: number;
  /** label of the migration under way */
  readonly current: string | null;
}

/** One migration in one run. */
interface Counted {
  readonly _id: { readonly run: string };
  readonly upDone: number | null;
  readonly downDone: number | null;
  readonly firstUp: number | null;
  readonly firstDownDone: number | null;
  readonly started: { readonly id: number; readonly path: string } | null;
}

/**
 * What runs have done, counted by the server: one line a migration and run. An up that the run has taken back again does not
 * count, nor does the down that did it; a redo has its down first, so both count.
 */
export async function progressOf(
  { collections }: MongoDatabase,
  runIds: readonly string[],
): Promise<ReadonlyMap<string, CountedProgress>> {
  const direction = (name: string): object => ({ $eq: ["$direction", name] });
  const isDone = { $and: [{ $eq: ["$status", "done"] }, { $eq: ["$origin", "run"] }] };
  const idWhere = (...conditions: readonly object[]): object => ({
    $cond: [{ $and: [...conditions] }, "$id", null],
  });
  const counted = collections.history.aggregate<Counted>(
    [
      { $match: { runId: { $in: [...runIds] } } },
      {
        $group: {
          // A repeatable migration has no place of its own, but a path.
          _id: { run: "$runId", seq: "$seq", path: { $cond: [{ $eq: ["$seq", 0] }, "$path", ""] } },
          upDone: { $max: idWhere(direction("up"), isDone) },
          downDone: { $max: idWhere(direction("down"), { $eq: ["$status", "done"] }) },
          firstUp: { $min: idWhere(direction("up")) },
          firstDownDone: { $min: idWhere(direction("down"), isDone) },
          started: {
            $max: { $cond: [{ $eq: ["$status", "started"] }, { id: "$id", path: "$path" }, null] },
          },
        },
      },
    ],
    { maxTimeMS: answerMs },
  );
  const applied = new Map<string, { applied: number; current: string | null; startedId: number }>();
  for await (const line of counted) {
    const run = applied.get(line._id.run) ?? { applied: 0, current: null, startedId: 0 };
    applied.set(line._id.run, run);
    if (line.upDone !== null && line.upDone > (line.downDone ?? 0)) run.applied += 1;
    if (line.firstDownDone !== null && line.firstDownDone < (line.firstUp ?? Infinity)) run.applied += 1;
    if (line.started !== null && line.started.id > run.startedId) {
      run.current = line.started.path;
      run.startedId = line.started.id;
    }
  }
  return applied;
}
