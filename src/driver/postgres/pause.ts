import { begin, insertStream } from "./lease.ts";
import { literal, type TableNames } from "./tables.ts";

/** Sets or ends a pause; a row when that changed anything. A heartbeat or a fence is in nobody's way. */
export function changePause(t: TableNames, stream: string, paused: boolean): string {
  const added = paused ? `${insertStream(t, stream)};` : "";
  return `${begin}; SET LOCAL synchronous_commit = on; ${added}
UPDATE ${t.streams} SET paused = ${paused} WHERE name = ${literal(stream)} AND paused <> ${paused} RETURNING 1 AS lockkeeper_paused;
COMMIT`;
}
