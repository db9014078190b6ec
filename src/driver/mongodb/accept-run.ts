import { RunnerError } from "../../error.ts";
import { isEnded, type RunStatus } from "../../history/run.ts";
import type { AcceptedRun, NewRun, PickedUpRun, PickUpQuery } from "../runs.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import type { RunDocument } from "./documents.ts";
import { expiryOf } from "./lease.ts";
import { addClaim, findByClaim, insertRun, keyClaim, tokenClaim } from "./runs.ts";
import { readRuns } from "./run-list.ts";
import { readStream } from "./state.ts";

/** milliseconds that a run which is not under a lease belongs to the process that said so last: three of its sweeps */
const claimMs = 45_000;
/** tries of finding out whose a token or a key is, while others are at the same */
const mostTries = 10;

/**
 * Records that a run was asked for. Its document holds all that makes it the only one, so one insert decides; the stream's
 * state is read at the same time.
 */
export async function acceptRun(
  database: MongoDatabase,
  run: NewRun,
  signal: AbortSignal,
): Promise<AcceptedRun> {
  if (!database.isPrepared) {
    const { state } = await readStream(database, run.stream, signal);
    if (!state.exists) await database.prepare(signal);
  }
  const [isAdded, { state }] = await Promise.all([
    insertRun(database, run),
    readStream(database, run.stream, signal, "known"),
  ]);
  return isAdded ? { kind: "accepted", state } : earlierRun(database, run);
}

/** Whose the token is, or the key: asked in this order, because a token that was used says most. */
async function earlierRun(database: MongoDatabase, run: NewRun): Promise<AcceptedRun> {
  for (let attempt = 1; attempt <= mostTries; attempt += 1) {
    const { singleUse, idempotencyKey } = run;
    const ofToken = singleUse === null ? undefined : await findByClaim(database, tokenClaim(singleUse));
    if (ofToken !== undefined)
      return isSameBody(ofToken, run) ? existing(database, ofToken) : { kind: "replay" };
    const ofKey = await findByClaim(
      database,
      idempotencyKey === null ? `run ${run.id}` : keyClaim(idempotencyKey),
    );
    if (ofKey === undefined) continue;
    if (!isSameBody(ofKey, run)) return { kind: "idempotency-mismatch" };
    // A retry with a new token belongs to the run that its key began.
    if (singleUse === null || (await addClaim(database, ofKey._id, tokenClaim(singleUse))))
      return existing(database, ofKey);
  }
  throw new RunnerError("INTERNAL", "a run was neither added nor found");
}

function isSameBody(earlier: RunDocument, { bodyDigest }: NewRun): boolean {
  return bodyDigest === null || earlier.bodyDigest === bodyDigest;
}

async function existing(database: MongoDatabase, document: RunDocument): Promise<AcceptedRun> {
  const [run] = await readRuns(database, [document]);
  if (run === undefined) throw new RunnerError("INTERNAL", "a run was neither added nor found");
  return { kind: "existing", run };
}

/**
 * Renews what the caller has, and takes what nobody has: runs under no lease of theirs, whose process said so or has
 * not been heard of. Each is taken by a write that names how it was found, so of several callers one has it.
 */
export async function pickUpRuns(
  database: MongoDatabase,
  { target, own, limit }: PickUpQuery,
  signal: AbortSignal,
): Promise<readonly PickedUpRun[]> {
  const { runs } = database.collections;
  const ended: readonly RunStatus[] = ["succeeded", "failed", "canceled"];
  const isOpen = { status: { $nin: [...ended] } };
  const [open] = await Promise.all([
    runs
      .find({ target, ...isOpen, order: { $ne: null }, _id: { $nin: [...own] } }, { maxTimeMS: answerMs })
      .sort({ createdAt: 1, _id: 1 })
      .toArray(),
    own.length === 0
      ? undefined
      : runs.updateMany(
          { _id: { $in: [...own] }, ...isOpen },
          { $currentDate: { claimedAt: true } },
          { maxTimeMS: answerMs },
        ),
  ]);
  if (open.length === 0) return [];
  const { alone, now } = await leftAlone(database, open, signal);
  const taken: RunDocument[] = [];
  for (const { _id, status, claimedAt, attempt } of alone) {
    if (taken.length >= limit) break;
    const run = await runs.findOneAndUpdate(
      { _id, status, claimedAt, attempt },
      { $set: { status: "handing_over" }, $currentDate: { claimedAt: true } },
      { returnDocument: "after", maxTimeMS: answerMs },
    );
    if (run !== null) taken.push(run);
  }
  const records = await readRuns(database, taken);
  return taken.flatMap((document, index) => {
    const run = records[index];
    if (run === undefined || isEnded(run.status)) return [];
    const order: unknown = document.order === null ? null : JSON.parse(document.order);
    const ageMs = Math.max(0, now.getTime() - document.createdAt.getTime());
    return [{ run, order, ageMs, hasBegun: document.total > 0 }];
  });
}

/** Those of the runs that nobody works on, by the server's clock. */
async function leftAlone(
  database: MongoDatabase,
  open: readonly RunDocument[],
  signal: AbortSignal,
): Promise<{ readonly alone: readonly RunDocument[]; readonly now: Date }> {
  const streams = [...new Set(open.map(({ stream }) => stream))];
  const [leases, { now }] = await Promise.all([
    database.collections.leases.find({ _id: { $in: streams } }, { maxTimeMS: answerMs }).toArray(),
    database.facts(signal),
  ]);
  const alone = open.filter(({ _id, status, claimedAt }) => {
    if (status === "running" || status === "canceling")
      return !leases.some((lease) => lease.runId === _id && expiryOf(lease) >= now);
    return claimedAt === null || claimedAt.getTime() + claimMs < now.getTime();
  });
  return { alone, now };
}
