import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../../error.ts";
import { type AuditEntry, firstLink, linkOf } from "../../history/audit.ts";
import type { AuditLog, AuditQuery } from "../audit-log.ts";
import { commandError, errorCode } from "./command-error.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import type { AuditDocument } from "./documents.ts";

/** milliseconds in which an entry finds its place between those of other writers */
const patienceMs = 25_000;
/** milliseconds between two tries, drawn from zero up to these: more for those who have lost often */
const backOffMs = { step: 8, longest: 200 };
/** milliseconds for which an entry of our own is taken for the newest: where it is not, the number after it is another's */
const newestMs = 10_000;

/** An entry that was added here, and `performance.now()` then. */
interface Added {
  readonly entry: AuditEntry;
  readonly at: number;
}

/**
 * The audit log in its collection. Who writes links to the newest entry and takes the number after it; of those who do
 * so at once, the `_id` lets one through, and the others link to his. What protects it: the links, and the copies that
 * every entry has in the runners' own log lines; a user who may insert may also remove.
 */
export function auditLog(database: MongoDatabase): AuditLog {
  let added: Added | undefined;
  return {
    async append(text, signal) {
      const known = added !== undefined && performance.now() - added.at < newestMs ? added.entry : undefined;
      const entry = await database.use(signal, () => append(database, text, known, signal));
      added = { entry, at: performance.now() };
      return entry;
    },
    read: (query, signal) => database.use(signal, () => read(database, query, signal)),
  };
}

/** @param known - what is tried as the newest first, without asking */
async function append(
  database: MongoDatabase,
  text: string,
  known: AuditEntry | undefined,
  signal: AbortSignal,
): Promise<AuditEntry> {
  await database.assertWritable(signal);
  const giveUpAt = performance.now() + patienceMs;
  let newest = known ?? (await readNewest(database, signal));
  for (let attempt = known === undefined ? 1 : 0; ; attempt += 1) {
    const previous = newest?.sha256 ?? firstLink;
    const entry = { seq: (newest?.seq ?? 0) + 1, previous, sha256: linkOf(previous, text), text };
    if (await insert(database, entry)) return entry;
    if (performance.now() > giveUpAt) throw crowdedOut(database.shownUrl);
    const longest = Math.min(attempt * backOffMs.step, backOffMs.longest);
    await sleep(Math.random() * longest, undefined, { signal });
    newest = await readNewest(database, signal);
  }
}

async function readNewest(database: MongoDatabase, signal: AbortSignal): Promise<AuditEntry | undefined> {
  const [newest] = await read(database, { after: 0, limit: 1, newest: true }, signal);
  return newest;
}

/** False where another has the number. An upsert, because only an update can write the server's time. */
async function insert({ collections }: MongoDatabase, { seq, ...rest }: AuditEntry): Promise<boolean> {
  try {
    const { upsertedCount } = await collections.audit.updateOne(
      { _id: seq, recordedAt: { $exists: false } },
      { $set: rest, $currentDate: { recordedAt: true } },
      { upsert: true, maxTimeMS: answerMs },
    );
    return upsertedCount === 1;
  } catch (cause) {
    if (commandError(cause)?.code === errorCode.duplicateKey) return false;
    throw cause;
  }
}

async function read(
  { collections }: MongoDatabase,
  { after, limit, newest = false }: AuditQuery,
  signal: AbortSignal,
): Promise<readonly AuditEntry[]> {
  const found = await collections.audit
    .find({ _id: { $gt: after } }, { maxTimeMS: answerMs, signal })
    .sort({ _id: newest ? -1 : 1 })
    .limit(limit)
    .toArray();
  return (newest ? found.toReversed() : found).map(readEntry);
}

function readEntry({ _id, previous, sha256, text }: AuditDocument): AuditEntry {
  return { seq: _id, previous, sha256, text };
}

function crowdedOut(shownUrl: string): RunnerError {
  return new RunnerError(
    "AUDIT_UNAVAILABLE",
    `${shownUrl}: other writers were quicker for ${patienceMs / 1000} s, and nothing was added to the audit log`,
    { hint: "try again; if it stays so, look what else writes to the audit log all the time" },
  );
}
