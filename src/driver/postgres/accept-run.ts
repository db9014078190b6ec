import { RunnerError } from "../../error.ts";
import type { AcceptedRun, NewRun } from "../runs.ts";
import type { Connection } from "./connection.ts";
import type { PostgresDatabase } from "./database.ts";
import { insertRun, readRun, type RequestedValues, requestedValues, selectRuns } from "./runs.ts";
import { readState, selectState } from "./state.ts";
import { literal, type TableNames } from "./tables.ts";

/** Records that a run was asked for, or finds the run that the same request asked for before; see `Driver.acceptRun`. */
export async function acceptRun(
  database: PostgresDatabase,
  connection: Connection,
  run: NewRun,
  signal: AbortSignal,
): Promise<AcceptedRun> {
  const { t } = database;
  const message = `${accepting(t, run)}; ${selectState(t, run.stream)}`;
  const results = await database.withTables(connection, signal, () => connection.send(message, signal));
  const [added, state] = results;
  const stateRow = state?.rows[0];
  if (added?.rows.length === 1 && stateRow !== undefined)
    return { kind: "accepted", state: readState(stateRow) };
  return earlierRun(t, connection, run, signal);
}

/** Whose the token is, or the key: asked in this order, because a token that was used says most. */
export async function earlierRun(
  t: TableNames,
  connection: Connection,
  run: NewRun,
  signal: AbortSignal,
): Promise<Exclude<AcceptedRun, { readonly kind: "accepted" }>> {
  const [result] = await connection.send(selectEarlier(t, run), signal);
  const rows = result?.rows ?? [];
  for (const [by, refusal] of [
    ["token", "replay"],
    ["key", "idempotency-mismatch"],
  ] as const) {
    const row = rows.find((candidate) => candidate["lockkeeper_by"] === by);
    if (row === undefined) continue;
    if (row["body_digest"] !== (run.bodyDigest ?? row["body_digest"])) return { kind: refusal };
    const isIt = `r.id = ${literal(String(row["run_id"]))}`;
    const earlier = await connection.send(selectRuns(t, isIt, 1), signal);
    const [found] = earlier.flatMap((part) => part.rows);
    if (found !== undefined) return { kind: "existing", run: readRun(found) };
  }
  throw new RunnerError("INTERNAL", "a run was neither added nor found");
}

function accepting(t: TableNames, run: NewRun): string {
  const insert = (where: string): string => insertRun(t, run, "queued", where);
  if (run.singleUse === null) return insert("true");
  return addUsed(t, requestedValues(run), useValues(run.singleUse), insert);
}

/** Columns of a single-use id, and their types. */
export const useColumns = { issuer: "text", jti: "text", expires_at: "timestamptz" } as const;

/** A value for each of {@link useColumns}, as SQL. */
export type UseValues = Readonly<Record<keyof typeof useColumns, string>>;

/** A single-use id, as literals. */
export function useValues({ issuer, jti, expiresAt }: NonNullable<NewRun["singleUse"]>): UseValues {
  return { issuer: literal(issuer), jti: literal(jti), expires_at: literal(expiresAt) };
}

/**
 * Records a request with its single-use id in one statement: the run's row is added only when the id is new.
 *
 * @param insert - adds the run's row where a condition holds
 * @param isToSweep - expired ids of the same issuer are swept along the way
 */
export function addUsed(
  t: TableNames,
  { id, idempotency_key, body_digest }: RequestedValues,
  { issuer, jti, expires_at }: UseValues,
  insert: (where: string) => string,
  isToSweep = true,
): string {
  // A retry with a new token belongs to the run that its key began.
  const firstRun = `coalesce((SELECT id FROM ${t.runs} WHERE idempotency_key = ${idempotency_key}), ${id})`;
  // A key that belongs to another body is refused, and then the token is not used up.
  const otherBody = `SELECT FROM ${t.runs} WHERE idempotency_key = ${idempotency_key} AND body_digest IS DISTINCT FROM ${body_digest}`;
  const swept = `swept AS (DELETE FROM ${t.requests} WHERE issuer = ${issuer} AND jti <> ${jti} AND expires_at < pg_catalog.clock_timestamp()), `;
  return `WITH ${isToSweep ? swept : ""}used AS (INSERT INTO ${t.requests} (issuer, jti, body_digest, run_id, expires_at)
  SELECT ${issuer}, ${jti}, coalesce(${body_digest}, ''), ${firstRun}, ${expires_at}
  WHERE NOT EXISTS (${otherBody})
  ON CONFLICT DO NOTHING RETURNING 1)
 ${insert("EXISTS (SELECT FROM used)")}`;
}

/** What stands in the way of a run that could not be added: the earlier use of its token, and of its key. */
function selectEarlier(t: TableNames, run: NewRun): string {
  const used =
    run.singleUse === null
      ? `SELECT NULL::text, NULL::text WHERE false`
      : `SELECT run_id, body_digest FROM ${t.requests} WHERE issuer = ${literal(run.singleUse.issuer)} AND jti = ${literal(run.singleUse.jti)}`;
  return `SELECT 'token' AS lockkeeper_by, run_id, body_digest FROM (${used}) u (run_id, body_digest)
 UNION ALL SELECT 'key', id, body_digest FROM ${t.runs} WHERE idempotency_key = ${literal(run.idempotencyKey)} OR id = ${literal(run.id)}`;
}
