import * as v from "valibot";

import type { AuditEntry } from "../history/audit.ts";
import { auditSchema } from "./record.ts";

const text = v.nullable(v.string());
const mark = v.nullable(v.object({ epoch: v.number(), version: v.number(), digest: v.string() }));

/** What readers use of a record. Open, because a newer lockkeeper may have written more. */
const recordSchema = v.object({
  schema: v.literal(auditSchema),
  time: v.string(),
  event: v.string(),
  outcome: text,
  code: text,
  action: v.string(),
  target: v.string(),
  stream: v.string(),
  run: text,
  principal: v.object({ issuer: v.string(), subject: v.string(), rule: text }),
  requested: v.object({ goal: text, digest: text, plan: text }),
  reason: text,
  offered: text,
  release: v.nullable(
    v.object({ epoch: v.nullable(v.number()), version: v.nullable(v.number()), digest: v.string() }),
  ),
  highWaterMark: v.object({ before: mark, after: mark }),
  from: text,
  to: text,
  migrations: v.array(v.object({ path: v.string() })),
  allMigrations: v.nullable(v.object({ count: v.number() })),
  leftOut: v.number(),
});

/** A record, as far as readers use it. */
export type ReadRecord = v.InferOutput<typeof recordSchema>;

/** The entry's record; undefined where it is none that this version can read. */
export function readRecord({ text: json }: Pick<AuditEntry, "text">): ReadRecord | undefined {
  const parsed = v.safeParse(recordSchema, parseJson(json));
  return parsed.success ? parsed.output : undefined;
}

/** A JSON document, or undefined. */
export function parseJson(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return undefined;
  }
}
