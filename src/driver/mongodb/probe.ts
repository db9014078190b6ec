import type { Db } from "mongodb";

import { textOf } from "../../migration/mongo/field.ts";
import type { Command } from "../../migration/mongo/value.ts";
import type { CommandDocument } from "./bson.ts";

/**
 * How one kind of command is asked about when nobody knows whether it took effect. What a look finds is kept as JSON,
 * so that the question can be answered after a crash, and when the file was changed meanwhile.
 */
export interface Probe {
  /** what is to be known of the database before the command is sent */
  look(db: Db, command: Command): Promise<Seen>;
  /** undefined: nothing tells */
  settle(db: Db, seen: Seen): Promise<"done" | "not-done" | undefined>;
  /** what is left to send of a command that may have been done in part */
  rest?(db: Db, seen: Seen, document: CommandDocument): Promise<CommandDocument>;
}

/** What a look has found. */
export type Seen = Readonly<Record<string, unknown>>;

/** What a command is about, which stands with its name: `{ "drop": "users" }`. */
export function firstText({ document }: Command): string {
  return textOf(document.entries[0]?.[1]) ?? "";
}
