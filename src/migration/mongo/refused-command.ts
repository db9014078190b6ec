import { quote } from "../format/folder-problem.ts";
import { fieldOf, itemsOf, textOf } from "./field.ts";
import { writtenBy } from "./command-kind.ts";
import type { Command, DocumentValue } from "./value.ts";

/** Why no migration may hold a command. */
export interface Refusal {
  readonly what: string;
  readonly hint: string;
}

/** What a migration may not do: end or shape a transaction, stop the server, or touch what lockkeeper keeps. */
export function refusalOf({ name, document }: Command): Refusal | undefined {
  const field = document.entries.find(([key]) => OF_SESSIONS.has(key));
  if (field !== undefined)
    return { what: `the field "${field[0]}", which shapes a session or transaction`, hint: REMOVE };
  if (TRANSACTIONS.has(name))
    return { what: `"${name}", which controls sessions or transactions`, hint: REMOVE };
  if (name === "dropDatabase")
    return {
      what: '"dropDatabase", which drops lockkeeper\'s own collections too',
      hint: 'drop the collections one by one with "drop"',
    };
  if (SERVER.has(name) || (name.startsWith("replSet") && name !== "replSetGetStatus"))
    return {
      what: `${quote(name)}, which is about the whole server`,
      hint: "remove it, and let whoever runs the server do it",
    };
  const own = targetsOf(name, document).find(isOwn);
  if (own === undefined) return undefined;
  return { what: `${quote(own)} is one of lockkeeper's own collections`, hint: "leave it alone" };
}

const REMOVE = "remove it: sessions and transactions are lockkeeper's own";
/** Default prefix of our collections; the driver knows another. */
const OWN = "lockkeeper.";
const OF_SESSIONS = new Set([
  "lsid",
  "txnNumber",
  "autocommit",
  "startTransaction",
  "stmtId",
  "stmtIds",
  "$db",
]);
const TRANSACTIONS = new Set([
  "commitTransaction",
  "abortTransaction",
  "prepareTransaction",
  "startSession",
  "endSessions",
  "refreshSessions",
  "killSessions",
  "killAllSessions",
  "killAllSessionsByPattern",
]);
/** They stop the server or all of its work, cut connections, or run what cannot be looked at. */
const SERVER = new Set([
  "shutdown",
  "fsync",
  "fsyncUnlock",
  "killOp",
  "dropConnections",
  "applyOps",
  "eval",
  "$eval",
  "authenticate",
  "logout",
  "saslStart",
  "saslContinue",
]);

/** Collections that a command writes to, as far as it says. */
function targetsOf(name: string, document: DocumentValue): readonly string[] {
  const first = textOf(document.entries[0]?.[1]);
  if (name === "renameCollection")
    return [first, textOf(fieldOf(document, "to"))].map((full) => full?.replace(/^[^.]*\./, "") ?? "");
  if (name !== "aggregate") return first === undefined ? [] : [first];
  return [writtenBy(itemsOf(fieldOf(document, "pipeline")).at(-1)) ?? ""];
}

function isOwn(collection: string): boolean {
  return collection.startsWith(OWN);
}
