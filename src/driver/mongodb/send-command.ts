import { setTimeout as sleep } from "node:timers/promises";

import type { ClientSession, Db, Document } from "mongodb";
import * as v from "valibot";

import { RunnerError } from "../../error.ts";
import type { CommandDocument } from "./bson.ts";
import { assertDone } from "./command-error.ts";
import { killOperation, runMark, selectOperations } from "./operations.ts";

/** How a command is sent. */
export interface SendOptions {
  /** named in its comment, by which it is found and killed */
  readonly key: RunKey;
  /** milliseconds that the server may work on it; 0: as long as it takes */
  readonly maxTimeMs: number;
  /** the transaction that it is a part of */
  readonly session?: ClientSession;
  /** the run is to stop */
  readonly signal: AbortSignal;
}

/** Whose command it is. */
type RunKey = Parameters<typeof runMark>[0];

/** milliseconds that a person's cancel leaves a command to end by itself */
const cancelGraceMs = 3_000;
/** milliseconds after which a server that does not end a killed command is no longer waited for */
const cutAfterKillMs = 10_000;
/** milliseconds between two looks for what is to be killed: it may not have begun at the first */
const killAgainMs = 500;

/**
 * Sends one command of a body as its file has it, with what we add where it says nothing itself: a comment that names
 * the run, a time limit, and, outside a transaction, that a majority keeps what it writes.
 *
 * @throws WriteErrors - the server answered `ok: 1` and said in it that something was not done
 * @throws MongoError - it answered `ok: 0`, or not at all
 */
export async function sendCommand(
  db: Db,
  document: CommandDocument,
  options: SendOptions,
): Promise<Document> {
  const database = adminCommands.has(nameOf(document)) ? db.client.db("admin") : db;
  const sent = complete(document, options);
  const { session, signal } = options;
  signal.throwIfAborted();
  const cut = new AbortController();
  const ended = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    const isPatient =
      signal.reason instanceof RunnerError &&
      (signal.reason.code === "CANCELED" || signal.reason.code === "HANDED_OVER");
    const waitMs = isPatient ? cancelGraceMs : 0;
    timer = setTimeout(() => void stop(db, options.key, cut, signal, ended.signal), waitMs);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    const answer = await database.command(sent, {
      signal: cut.signal,
      ...(session === undefined ? {} : { session }),
    });
    assertDone(answer);
    await closeCursor(db, answer, session);
    return answer;
  } finally {
    ended.abort();
    clearTimeout(timer);
    signal.removeEventListener("abort", onAbort);
  }
}

/** Commands that the server takes on its database "admin" only; the namespaces in them are whole. */
const adminCommands: ReadonlySet<string> = new Set(["renameCollection"]);

function nameOf(document: CommandDocument): string {
  return Object.keys(document)[0] ?? "";
}

function complete(document: CommandDocument, { key, maxTimeMs, session }: SendOptions): CommandDocument {
  const mark = runMark(key);
  const { comment, maxTimeMS: own, writeConcern, ...rest } = document;
  const limit = smaller(own, maxTimeMs);
  return {
    ...rest,
    // Found by how it begins, so a comment of the body's own stays readable behind it.
    comment: typeof comment === "string" ? `${mark} ${comment}` : mark,
    ...(limit === undefined ? {} : { maxTimeMS: limit }),
    // A transaction's commit decides for all that is in it, and the server refuses another word.
    ...(session !== undefined
      ? {}
      : writeConcern !== undefined
        ? { writeConcern }
        : writes(document)
          ? { writeConcern: { w: "majority" } }
          : {}),
  };
}

/** The body's own limit where it is the smaller one; undefined: none. */
function smaller(own: unknown, maxTimeMs: number): unknown {
  if (maxTimeMs === 0) return own;
  const limit = Math.max(1, Math.round(maxTimeMs));
  const isSmaller = own !== undefined && Number(own) > 0 && Number(own) < limit;
  return isSmaller ? own : limit;
}

function writes(document: CommandDocument): boolean {
  const name = nameOf(document);
  if (name !== "aggregate") return writing.has(name);
  const { pipeline } = document;
  const last: unknown = Array.isArray(pipeline) ? pipeline.at(-1) : undefined;
  return last instanceof Map && (last.has("$out") || last.has("$merge"));
}

/** Commands that write, and that take a write concern. */
const writing: ReadonlySet<string> = new Set([
  "insert",
  "update",
  "delete",
  "findAndModify",
  "findandmodify",
  "bulkWrite",
  "create",
  "createIndexes",
  "drop",
  "dropIndexes",
  "dropDatabase",
  "collMod",
  "convertToCapped",
  "renameCollection",
  "createUser",
  "updateUser",
  "dropUser",
  "dropAllUsersFromDatabase",
  "grantRolesToUser",
  "revokeRolesFromUser",
  "createRole",
  "updateRole",
  "dropRole",
  "dropAllRolesFromDatabase",
  "grantPrivilegesToRole",
  "revokePrivilegesFromRole",
  "grantRolesToRole",
  "revokeRolesFromRole",
]);

/** A Long where it is no safe integer. */
const openCursor = v.object({ cursor: v.object({ id: v.unknown(), ns: v.string() }) });

/** What a body reads, nobody looks at: the server need not keep the rest of it. */
async function closeCursor(db: Db, answer: Document, session: ClientSession | undefined): Promise<void> {
  const read = v.safeParse(openCursor, answer);
  if (!read.success) return;
  const { cursor } = read.output;
  if (cursor.id === 0) return;
  const collection = cursor.ns.slice(cursor.ns.indexOf(".") + 1);
  await db
    .command({ killCursors: collection, cursors: [cursor.id] }, session === undefined ? {} : { session })
    .catch(() => undefined);
}

/** Has the server end what it works on, and then waits for it no longer. */
async function stop(
  db: Db,
  { stream, token }: RunKey,
  cut: AbortController,
  { reason }: AbortSignal,
  ended: AbortSignal,
): Promise<void> {
  const enough = AbortSignal.timeout(cutAfterKillMs);
  try {
    while (!ended.aborted && !enough.aborted) {
      // A server that shows nothing has nothing to wait for: what was sent carries its own limit.
      const wanted = { stream, isWanted: (other: number) => other === token };
      const found = await selectOperations(db, wanted, enough);
      if (found.length === 0) break;
      for (const operation of found) await killOperation(db, operation, enough);
      await sleep(killAgainMs, undefined, { signal: AbortSignal.any([ended, enough]) }).catch(
        () => undefined,
      );
    }
  } catch {
    // It cannot be reached: nobody there to tell.
  }
  if (!ended.aborted) cut.abort(reason);
}
