import type { Analysis } from "./analysis.ts";
import { batchName, foldName, splitNames, type Backfill } from "./backfill.ts";
import { backfillError } from "./body-error.ts";
import { parseSql } from "./parse-sql.ts";
import type { Node, RangeVar } from "./parse-sql.ts";
import { scanSql } from "./scan-sql.ts";
import { unitOffset } from "./sql-body.ts";
import type { SqlBody } from "./sql-body.ts";
import type { TableLock } from "./lock-collector.ts";

/** One statement of a file that is a backfill. */
export interface BackfillStatement {
  /** bytes */
  readonly offset: number;
  readonly length: number;
  /** why it cannot run for a range of keys; undefined where it can */
  readonly flaw: BackfillFlaw | undefined;
}

/** Why a statement cannot run range by range, and what to do instead. */
export interface BackfillFlaw {
  readonly what: string;
  readonly hint: string;
}

/**
 * How a body with a backfill's header runs: its one statement, without the blanks and comments around it, so that
 * another batch size does not make it another statement.
 *
 * @throws RunnerError `BACKFILL` — not exactly one statement, or one that cannot run range by range
 */
export function judgeBackfill(
  body: SqlBody,
  statements: readonly BackfillStatement[],
  locks: readonly TableLock[],
): Analysis {
  const [only, second] = statements;
  if (only === undefined || second !== undefined) {
    throw backfillError(
      body,
      second === undefined ? 0 : startOf(body, second),
      only === undefined ? "a backfill without a statement" : "a backfill with more than one statement",
      "write exactly one statement into the file, and the others into migrations of their own",
    );
  }
  const start = startOf(body, only);
  if (only.flaw !== undefined) throw backfillError(body, start, only.flaw.what, only.flaw.hint);
  const end = unitOffset(body, only.offset) + pieceOf(body, only).end;
  const offset = Buffer.byteLength(body.text.slice(0, start));
  const length = Buffer.byteLength(body.text.slice(start, end));
  return {
    tx: "none",
    alone: false,
    locks,
    statements: [{ offset, length, kind: "backfill" }],
    isEmpty: false,
  };
}

/** What keeps a statement from running once for each range of the header's table. */
export function flawOf(node: Node, backfill: Backfill): BackfillFlaw | undefined {
  if (!isKnownKind(node)) {
    return {
      what: "a backfill's statement is none of UPDATE, DELETE, INSERT … SELECT and MERGE",
      hint: "write what else is to be done into a migration of its own",
    };
  }
  const names = namesIn(node);
  if (names.definesBatch) {
    return {
      what: `a backfill's statement has a WITH query of its own named "${batchName}"`,
      hint: `give it another name: the rows of each range are the relation "${batchName}"`,
    };
  }
  if (!names.readsBatch) {
    return {
      what: `a backfill's statement does not name the relation "${batchName}"`,
      hint: `join it by the key: UPDATE … FROM ${batchName} WHERE …, DELETE … USING ${batchName} WHERE …`,
    };
  }
  if (movesKey(node, backfill)) {
    return {
      what: "a backfill that changes the key it follows would meet its own rows again",
      hint: "follow another key, or change the keys in a migration that is no backfill",
    };
  }
  if (growsTable(node, backfill)) {
    return {
      what: "a backfill that inserts into the table it follows would meet its own rows again, without end",
      hint: "insert into another table, or in a migration that is no backfill",
    };
  }
  return undefined;
}

/** One that is too large to look into. */
export const tooLargeForBackfill: BackfillFlaw = {
  what: "a backfill's statement is too large to be analysed",
  hint: "keep what it needs in a table",
};

/**
 * Makes sure that the header's throttle is one query.
 *
 * @throws RunnerError `BACKFILL`
 */
export async function assertThrottleIsQuery(body: SqlBody): Promise<void> {
  const query = body.header.backfill?.throttle;
  if (query === undefined) return;
  let count = 0;
  let isQuery = true;
  const problem = await parseSql(query, {
    visit({ node }) {
      count += 1;
      isQuery &&= "SelectStmt" in node && node.SelectStmt.intoClause === undefined;
    },
    visitLarge: () => false,
  });
  if (problem === undefined && count === 1 && isQuery) return;
  throw backfillError(
    body,
    body.text.indexOf(query),
    problem === undefined ? "the throttle is not one query" : `the throttle: ${problem.message}`,
    "write one SELECT of one boolean: while it is true, the backfill waits",
  );
}

/** The one lexical statement in what the parser took for one. */
function pieceOf(body: SqlBody, { offset, length }: BackfillStatement): { start: number; end: number } {
  const piece = body.bytes.toString("utf8", offset, offset + length);
  const scanned = scanSql(piece).statements;
  return { start: scanned[0]?.start ?? 0, end: scanned.at(-1)?.end ?? piece.length };
}

function startOf(body: SqlBody, statement: BackfillStatement): number {
  return unitOffset(body, statement.offset) + pieceOf(body, statement).start;
}

function isKnownKind(node: Node): boolean {
  if ("InsertStmt" in node) return node.InsertStmt.selectStmt !== undefined;
  return "UpdateStmt" in node || "DeleteStmt" in node || "MergeStmt" in node;
}

/** Whether the tree reads the relation, and whether a WITH query of its own takes its name; a target to write to is no reading. */
function namesIn(root: unknown): { readonly readsBatch: boolean; readonly definesBatch: boolean } {
  let readsBatch = false;
  let definesBatch = false;
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) return value.forEach(visit);
    if (typeof value !== "object" || value === null) return;
    for (const [key, inner] of Object.entries(value) as [string, unknown][]) {
      if (key === "RangeVar") readsBatch ||= isBatch(inner as RangeVar);
      else if (key === "CommonTableExpr")
        definesBatch ||= Reflect.get(Object(inner), "ctename") === batchName;
      visit(inner);
    }
  };
  visit(root);
  return { readsBatch, definesBatch };
}

function isBatch({ relname, schemaname, catalogname }: RangeVar): boolean {
  return relname === batchName && schemaname === undefined && catalogname === undefined;
}

function movesKey(node: Node, { table, key }: Backfill): boolean {
  if (!("UpdateStmt" in node) || !isTable(node.UpdateStmt.relation, table)) return false;
  const columns = key.map(foldName);
  return (node.UpdateStmt.targetList ?? []).some(
    (target) => "ResTarget" in target && columns.includes(target.ResTarget.name ?? ""),
  );
}

/** With ON CONFLICT it may be one that only updates. */
function growsTable(node: Node, { table }: Backfill): boolean {
  return (
    "InsertStmt" in node &&
    node.InsertStmt.onConflictClause === undefined &&
    isTable(node.InsertStmt.relation, table)
  );
}

function isTable(relation: RangeVar | undefined, table: string): boolean {
  const names = splitNames(table).map(foldName);
  const schema = names.length > 1 ? names[0] : undefined;
  if (relation?.relname !== names.at(-1)) return false;
  return schema === undefined || relation?.schemaname === undefined || relation.schemaname === schema;
}
