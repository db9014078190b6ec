import type { Filter } from "mongodb";

import type { RunRecord } from "../../history/run.ts";
import type { RunQuery } from "../runs.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import type { RunDocument } from "./documents.ts";
import { progressOf } from "./run-progress.ts";

const limit = { maxTimeMS: answerMs } as const;

/** Newest first. Ids tell no order: they hold the time of a clock that may be wrong. */
export async function listRuns(database: MongoDatabase, query: RunQuery): Promise<readonly RunRecord[]> {
  const { runs } = database.collections;
  const { target, status, isOpen, since, beforeId } = query;
  const filter: Filter<RunDocument>[] = [{ target }];
  if (status !== undefined) filter.push({ status });
  if (isOpen === true) filter.push({ endedAt: { $exists: false } });
  if (since !== undefined) filter.push({ createdAt: { $gte: since } });
  if (beforeId !== undefined) {
    const before = await runs.findOne({ _id: beforeId }, { projection: { createdAt: 1 }, ...limit });
    if (before === null) return [];
    const { createdAt } = before;
    filter.push({ $or: [{ createdAt: { $lt: createdAt } }, { createdAt, _id: { $lt: beforeId } }] });
  }
  if (query.limit === 0) return [];
  const found = await runs
    .find({ $and: filter }, limit)
    .sort({ createdAt: -1, _id: -1 })
    .limit(query.limit)
    .toArray();
  return readRuns(database, found);
}

/** Documents as runs, with their progress, which is what the history says of them. */
export async function readRuns(
  database: MongoDatabase,
  documents: readonly RunDocument[],
): Promise<readonly RunRecord[]> {
  if (documents.length === 0) return [];
  const progress = await progressOf(
    database,
    documents.map(({ _id }) => _id),
  );
  return documents.map((document) => ({
    id: document._id,
    target: document.target,
    stream: document.stream,
    action: document.action,
    status: document.status,
    outcome: document.outcome ?? null,
    trigger: document.trigger,
    caller: document.caller,
    releaseDigest: document.releaseDigest,
    releaseVersion: document.releaseVersion ?? null,
    fromVersion: document.fromVersion ?? null,
    toVersion: document.toVersion ?? null,
    progress: {
      applied: progress.get(document._id)?.applied ?? 0,
      total: document.total,
      current: progress.get(document._id)?.current ?? null,
    },
    labels: JSON.parse(document.labels) as RunRecord["labels"],
    cancelRequested: document.cancelRequested,
    attempt: document.attempt,
    createdAt: document.createdAt,
    startedAt: document.startedAt ?? null,
    endedAt: document.endedAt ?? null,
    backup: document.backup ?? null,
    error: document.error ?? null,
  }));
}
