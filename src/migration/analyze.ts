import { RunnerError, toRunnerError } from "../error.ts";
import type { Analysis } from "./analysis.ts";
import {
  assertThrottleIsQuery,
  flawOf,
  judgeBackfill,
  tooLargeForBackfill,
  type BackfillFlaw,
} from "./analyze-backfill.ts";
import { controlError, openError, problemError, refusalError } from "./body-error.ts";
import type { Statement, TxMode } from "./migration.ts";
import { parseSql } from "./parse-sql.ts";
import type { SyntaxProblem } from "./parse-sql.ts";
import { scanAnalysis, scanStatement } from "./scan-analysis.ts";
import { firstWords, scanSql } from "./scan-sql.ts";
import { isBlank, readBody, unitOffset } from "./sql-body.ts";
import type { SqlBody } from "./sql-body.ts";
import { factsOf, ORDINARY } from "./statement-facts.ts";
import type { StatementFacts } from "./statement-facts.ts";
import { LockCollector } from "./lock-collector.ts";
import { collectLocks } from "./table-locks.ts";
import type { TableLock } from "./lock-collector.ts";
import { unwrapTransaction } from "./unwrap-sql.ts";

export type { Analysis } from "./analysis.ts";
export { scanAnalysis } from "./scan-analysis.ts";

/**
 * Decides how a body may run, by PostgreSQL's own parser: what `publish` signs.
 *
 * @param tx - what its tool's own directives ask for, where its header asks for nothing
 * @throws RunnerError `ENCODING`, `HEADER`
 * @throws RunnerError `SQL_SYNTAX` — the parser does not take it; `SQL_OPEN` — a quote or comment has no end
 * @throws RunnerError `TRANSACTION_CONTROL` — it ends or shapes a transaction, other than by one `BEGIN … COMMIT` around all of it
 * @throws RunnerError `STATEMENT_REFUSED` — a statement that no migration may hold, or not in a transaction where the header asks for one
 * @throws RunnerError `BACKFILL` — the header makes it a backfill, and its statement or its throttle cannot be that
 * @throws RunnerError `TOO_LARGE` — a statement that the parser gives up on
 */
export async function analyzeSql(bytes: Uint8Array, path: string, tx?: TxMode): Promise<Analysis> {
  const body = readBody(bytes, path, tx);
  if (isBlank(body.text)) return EMPTY;
  const parsed = await parseBody(body);
  if (parsed.problem !== undefined) throw problemError(body, scanSql(body.text), parsed.problem);
  return judge(body, parsed);
}

/**
 * As {@link analyzeSql} for a run without a signed release: fast where the lexer is sure, and where the parser does not
 * know the syntax the server is asked, which may be newer. Only a body left open is refused for its form.
 */
export async function analyzeUnsigned(bytes: Uint8Array, path: string, tx?: TxMode): Promise<Analysis> {
  const scanned = tx === undefined ? scanAnalysis(bytes, path) : undefined;
  if (scanned !== undefined) return scanned;
  const body = readBody(bytes, path, tx);
  const outcome = await parseBody(body).then(
    (parsed) =>
      parsed.problem === undefined ? parsed : problemError(body, scanSql(body.text), parsed.problem),
    (thrown: unknown) => toRunnerError(thrown),
  );
  if (!(outcome instanceof RunnerError)) return judge(body, outcome);
  const isServersToTell = outcome.code === "SQL_SYNTAX" || outcome.code === "TOO_LARGE";
  if (!isServersToTell || body.header.tx === "none" || body.header.backfill !== undefined) throw outcome;
  refuseScanned(body);
  return { tx: "one", alone: false, locks: [], isEmpty: false };
}

interface ParsedBody {
  readonly statements: readonly AnalyzedStatement[];
  readonly locks: readonly TableLock[];
  readonly problem: SyntaxProblem | undefined;
}

interface AnalyzedStatement {
  /** bytes */
  readonly offset: number;
  readonly length: number;
  readonly facts: StatementFacts;
  /** in a backfill: why it cannot be one */
  readonly flaw: BackfillFlaw | undefined;
}

const EMPTY: Analysis = { tx: "one", alone: true, locks: [], isEmpty: true };

async function parseBody(body: SqlBody): Promise<ParsedBody> {
  await assertThrottleIsQuery(body);
  const { text, path } = body;
  const { backfill } = body.header;
  const statements: AnalyzedStatement[] = [];
  const locks = new LockCollector();
  try {
    const problem = await parseSql(text, {
      visit({ offset, length, node }) {
        const flaw = backfill === undefined ? undefined : flawOf(node, backfill);
        statements.push({ offset, length, facts: factsOf(node), flaw });
        collectLocks(node, locks);
      },
      visitLarge({ offset, length, scanned }) {
        statements.push({ offset, length, facts: ORDINARY, flaw: tooLargeForBackfill });
        return scanStatement(text, scanned, locks);
      },
    });
    return { statements, locks: locks.locks, problem };
  } catch (thrown) {
    // the parser, or a walk through its tree, met an expression nested too deeply
    const isTooLarge =
      thrown instanceof RangeError || (thrown instanceof RunnerError && thrown.code === "TOO_LARGE");
    if (!isTooLarge) throw thrown;
    // an open quote makes one statement of all that follows, and so does what psql alone understands
    const likely = problemError(body, scanSql(text), { message: "", index: text.length });
    if (likely.code !== "SQL_SYNTAX") throw likely;
    throw new RunnerError(
      "TOO_LARGE",
      `${path}: a statement is too large or too deeply nested to be analysed`,
      {
        hint: "split it into several statements",
        fields: { migration: path },
        cause: thrown,
      },
    );
  }
}

function judge(body: SqlBody, { statements, locks }: ParsedBody): Analysis {
  for (const statement of statements) {
    if (statement.facts.refusal !== undefined)
      throw refusalError(body, unitOffset(body, statement.offset), statement.facts.refusal);
  }
  if (body.header.backfill !== undefined) return judgeBackfill(body, statements, locks);
  const isWrapped = isOneTransaction(body, statements);
  const inner = isWrapped ? statements.slice(1, -1) : statements;
  for (const statement of inner) refuseControl(body, statement);
  const outside = inner.find(({ facts }) => facts.kind !== "transactional");
  if (outside !== undefined && (isWrapped || body.header.tx === "one")) {
    throw refusalError(body, unitOffset(body, outside.offset), {
      what: `${spell(outside.facts.kind)} cannot run inside a transaction`,
      hint: isWrapped
        ? "move it out of BEGIN … COMMIT, into a migration of its own"
        : "remove tx=one from the file's header",
    });
  }
  if (outside === undefined && body.header.tx !== "none") {
    const alone = isSeenAlike(body, statements) && inner.every(({ facts }) => facts.isAlone);
    return { tx: "one", alone, locks, isEmpty: false };
  }
  if (isWrapped)
    throw controlError(
      body,
      unitOffset(body, statements[0]?.offset ?? 0),
      "BEGIN … COMMIT in a migration with tx=none",
    );
  const savepoint = inner.find(({ facts }) => facts.control === "savepoint");
  if (savepoint !== undefined)
    throw controlError(
      body,
      unitOffset(body, savepoint.offset),
      "a savepoint in a migration that runs outside a transaction",
    );
  return {
    tx: "none",
    alone: false,
    locks,
    statements: inner.map((statement) => trim(body, statement)),
    isEmpty: false,
  };
}

/** The parser is that of PostgreSQL 18; where an older server may take the text apart differently, it gets a message of its own. */
function isSeenAlike(body: SqlBody, statements: readonly AnalyzedStatement[]): boolean {
  const scan = scanSql(body.text);
  return scan.isSure && scan.statements.length === statements.length;
}

/** Both the parser and the lexer, which takes the two off before sending, must see them in the same places. */
function isOneTransaction(body: SqlBody, statements: readonly AnalyzedStatement[]): boolean {
  const first = statements[0];
  const last = statements.at(-1);
  if (first?.facts.control !== "begin" || last?.facts.control !== "commit") return false;
  const inner = unwrapTransaction(body.text);
  return (
    inner !== undefined &&
    inner.start > unitOffset(body, first.offset) &&
    inner.end === unitOffset(body, last.offset)
  );
}

function refuseControl(body: SqlBody, { offset, facts }: AnalyzedStatement): void {
  switch (facts.control) {
    case undefined:
    case "savepoint":
      return;
    case "mode":
      throw controlError(body, unitOffset(body, offset), "a transaction mode of its own");
    case "begin":
    case "commit":
    case "other":
      throw controlError(body, unitOffset(body, offset), "transaction control");
  }
}

/** What the lexer can see, where the parser does not know the file's syntax: open ends, and transaction control by its first words. */
function refuseScanned(body: SqlBody): void {
  const { text } = body;
  const scan = scanSql(text);
  if (scan.open !== undefined) throw openError(body, scan.open);
  const inner = unwrapTransaction(text);
  for (const statement of scan.statements) {
    if (inner !== undefined && (statement.start < inner.start || statement.start >= inner.end)) continue;
    const [first, second] = firstWords(text, statement);
    const isControl = CONTROL_WORDS.has(first ?? "") || (first === "PREPARE" && second === "TRANSACTION");
    if (isControl) throw controlError(body, statement.start, "transaction control");
  }
}

const CONTROL_WORDS: ReadonlySet<string> = new Set(["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"]);

/** Without the blanks and comments between its last token and the semicolon, so that a comment does not change its checksum. */
function trim({ bytes }: SqlBody, { offset, length, facts }: AnalyzedStatement): Statement {
  const piece = bytes.toString("utf8", offset, offset + length);
  const end = scanSql(piece).statements.at(-1)?.end ?? piece.length;
  return { offset, length: Buffer.byteLength(piece.slice(0, end)), kind: facts.kindOutside };
}

function spell(kind: string): string {
  return kind.replaceAll("-", " ").toUpperCase();
}
