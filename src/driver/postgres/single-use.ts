import type { SpentUse } from "../runs.ts";
import { literal, type TableNames } from "./tables.ts";

/**
 * Uses an id up, and says whether that, or an earlier call for the very same thing, is what it was used for. The second
 * statement has a snapshot of its own and so sees what a call at the same time has written.
 */
export function spendUse(t: TableNames, { issuer, jti, expiresAt, bodyDigest, runId }: SpentUse): string {
  const values = [issuer, jti, bodyDigest, runId, expiresAt].map((value) => literal(value)).join(", ");
  return `INSERT INTO ${t.requests} (issuer, jti, body_digest, run_id, expires_at) VALUES (${values}) ON CONFLICT DO NOTHING;
SELECT body_digest = ${literal(bodyDigest)} AS lockkeeper_ours FROM ${t.requests} WHERE issuer = ${literal(issuer)} AND jti = ${literal(jti)}`;
}
