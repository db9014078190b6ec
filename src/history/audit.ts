import { createHash } from "node:crypto";

/** One row of a database's audit log: what was decided or done, linked to the row before it. */
export interface AuditEntry {
  /** from 1, without gaps */
  readonly seq: number;
  /** hex sha256 of the entry before; {@link firstLink} for the first */
  readonly previous: string;
  /** {@link linkOf} this entry */
  readonly sha256: string;
  /** one JSON document, exactly as it was hashed */
  readonly text: string;
}

/** An entry's place in the chain: what to write down elsewhere, so that nobody can change it or anything before it unseen. */
export type AuditLink = Pick<AuditEntry, "seq" | "sha256">;

/** What the first entry is linked to. */
export const firstLink = "0".repeat(64);

/** `sha256(previous + "\n" + text)`, hex: with a shell, `printf '%s\n%s' "$previous" "$text" | sha256sum`. */
export function linkOf(previous: string, text: string): string {
  return createHash("sha256").update(`${previous}\n${text}`).digest("hex");
}
