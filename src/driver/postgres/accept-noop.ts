import type { AcceptedNoop, NoopRun } from "../runs.ts";
import { addUsed, earlierRun, useColumns, useValues, type UseValues } from "./accept-run.ts";
import { addLinked } from "./audit.ts";
import type { Connection } from "./connection.ts";
import type { PostgresDatabase } from "./database.ts";
import type { PreparedStatement, Write } from "./prepared.ts";
import { insertNoop, readRun, requestedColumns, requestedValues, type RequestedValues } from "./runs.ts";
import { literal, type TableNames } from "./tables.ts";
import { Together } from "../../together.ts";

/** Runs that one transaction records; the rest wait for the next. */
const mostAtOnce = 32;
/** milliseconds between two looks for tokens that have expired: each reads all that are remembered of an issuer */
const sweepMs = 60_000;
/** milliseconds for one message, whose senders may have left meanwhile */
const writeMs = 10_000;

/**
 * Records runs that had nothing to do; see `Driver.acceptNoop`. Those that come at the same time share a transaction, for
 * what they wait for is the disk, and the end of the audit log's chain, of which there is only one.
 */
export function noopRecorder(database: PostgresDatabase): Together<NoopRun, AcceptedNoop> {
  let sweptAt = -Infinity;
  const recordAll = (noops: readonly NoopRun[], signal: AbortSignal): Promise<readonly AcceptedNoop[]> => {
    const isToSweep = performance.now() - sweptAt > sweepMs;
    if (isToSweep) sweptAt = performance.now();
    return database.use(signal, (connection) => record(database, connection, { noops, isToSweep }, signal));
  };
  return new Together(async (noops) => {
    const { signal, clear } = patience(writeMs);
    try {
      const accepted = await recordAll(noops, signal);
      clear();
      return accepted;
    } catch (cause) {
      if (noops.length === 1) throw cause;
      // One of them is to blame, if any; the others do not have to bear it.
      return noops.map(async (noop) => {
        const [result] = await recordAll([noop], signal);
        return result as AcceptedNoop;
      });
    }
  }, mostAtOnce);
}

/** As `AbortSignal.timeout`, of which there would be thousands for messages that were answered long ago. */
function patience(ms: number): { readonly signal: AbortSignal; clear(): void } {
  const controller = new AbortController();
  const timer = setTimeout(() => controller.abort(), ms).unref();
  return { signal: controller.signal, clear: () => clearTimeout(timer) };
}

async function record(
  database: PostgresDatabase,
  connection: Connection,
  { noops, isToSweep }: { readonly noops: readonly NoopRun[]; readonly isToSweep: boolean },
  signal: AbortSignal,
): Promise<readonly AcceptedNoop[]> {
  const { t } = database;
  const added = {
    statements: [acceptedNoop(t)],
    before: (write: Write) => noops.map((noop, index) => writeNoop(t, noop, write, isToSweep && index === 0)),
    records: noops.flatMap(({ run, records }) => records.map((text) => ({ text, run: run.id }))),
  };
  const { results, entries } = await addLinked(database, connection, added, signal);
  const left = [...entries];
  const accepted: AcceptedNoop[] = [];
  for (const [index, { run, records }] of noops.entries()) {
    const [row] = results[index]?.rows ?? [];
    accepted.push(
      row === undefined
        ? await earlierRun(t, connection, run, signal)
        : { kind: "accepted", run: readRun(row), entries: left.splice(0, records.length) },
    );
  }
  return accepted;
}

/** Adds the row of one run where its token is new. */
function acceptedNoop(
  t: TableNames,
  isToSweep = false,
): PreparedStatement<keyof (RequestedValues & UseValues) | "version"> {
  return {
    name: "lockkeeper_noop",
    types: { ...requestedColumns, ...useColumns, version: "text" },
    text: ({ version, issuer, jti, expires_at, ...run }) =>
      addUsed(t, run, { issuer, jti, expires_at }, (where) => insertNoop(t, run, version, where), isToSweep),
  };
}

function writeNoop(
  t: TableNames,
  { run, releaseDigest, version }: NoopRun,
  write: Write,
  isToSweep: boolean,
): string {
  const requested = requestedValues({ ...run, releaseDigest });
  if (run.singleUse === null) return insertNoop(t, requested, literal(version), "true");
  const used = { ...requested, ...useValues(run.singleUse), version: literal(version) };
  return isToSweep ? acceptedNoop(t, true).text(used) : write(acceptedNoop(t), used);
}
