import type { Db } from "mongodb";
import * as v from "valibot";

/**
 * What the server is working on, by the comments of our commands (`protocol.md` 17). A user sees the operations that are
 * its own without any right.
 */

/** Begins the comment of every command of a stream's runs. */
function streamMark(stream: string): string {
  return `lockkeeper:${stream}:`;
}

/** The comment of the commands under one token. */
export function runMark({ stream, token }: { readonly stream: string; readonly token: number }): string {
  return `${streamMark(stream)}${token}`;
}

/** One operation of ours. */
export interface Operation {
  /** as `killOp` takes it: a number, or `shard:number` of a sharded cluster */
  readonly id: number | string;
  readonly token: number;
  readonly secondsRunning: number;
}

/** Operations under way of a stream's runs whose token is one of `isWanted`, the longest first. */
export async function selectOperations(
  db: Db,
  { stream, isWanted }: WantedOperations,
  signal: AbortSignal,
): Promise<readonly Operation[]> {
  const mark = streamMark(stream);
  const found = await currentOperations(db, mark, signal);
  return found
    .flatMap(({ opid, command, secs_running }) => {
      const digits = /^(\d{1,15})(?: |$)/.exec(command.comment.slice(mark.length))?.[1];
      if (digits === undefined || !isWanted(Number(digits))) return [];
      return [{ id: opid, token: Number(digits), secondsRunning: Number(secs_running ?? 0) }];
    })
    .toSorted((a, b) => b.secondsRunning - a.secondsRunning);
}

/** Which operations are looked for. */
export interface WantedOperations {
  readonly stream: string;
  isWanted(token: number): boolean;
}

/**
 * Whether the server shows what it works on. One that does shows the very question, as being worked on; a service that
 * has no `$currentOp`, or answers it with nothing, cannot be relied on to show a command of a dead run.
 */
export async function showsOperations(db: Db, signal: AbortSignal): Promise<boolean> {
  return (await currentOperations(db, lookMark, signal).catch(() => [])).length > 0;
}

/** Has the server end one. It may still be there afterwards, for as long as it does not listen. */
export async function killOperation(db: Db, { id }: Operation, signal: AbortSignal): Promise<void> {
  await db.client.db("admin").command({ killOp: 1, op: id }, { signal });
}

const lookMark = "lockkeeper looks";

const operation = v.object({
  opid: v.union([v.number(), v.string()]),
  secs_running: v.optional(v.union([v.number(), v.bigint()])),
  command: v.object({ comment: v.string() }),
});

async function currentOperations(
  db: Db,
  mark: string,
  signal: AbortSignal,
): Promise<readonly v.InferOutput<typeof operation>[]> {
  const answer = await db.client.db("admin").command(
    {
      aggregate: 1,
      pipeline: [{ $currentOp: {} }, { $match: { active: true } }],
      cursor: { batchSize: 10_000 },
      comment: lookMark,
    },
    { signal },
  );
  const { cursor } = v.parse(v.object({ cursor: v.object({ firstBatch: v.array(v.unknown()) }) }), answer);
  return cursor.firstBatch.flatMap((document) => {
    const read = v.safeParse(operation, document);
    return read.success && read.output.command.comment.startsWith(mark) ? [read.output] : [];
  });
}
