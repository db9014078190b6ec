import { RunnerError } from "../error.ts";
import type { RunnerErrorCode } from "../error.ts";
import type { Analysis } from "./analysis.ts";
import { decodeBody } from "./decode.ts";
import { parseHeader } from "./header.ts";
import type { Header } from "./header.ts";
import type { Statement } from "./migration.ts";
import { parseSql } from "./parse-sql.ts";
import type { SyntaxProblem } from "./parse-sql.ts";
import { locateUnit } from "./position.ts";
import { scanAnalysis, scanStatement } from "./scan-analysis.ts";
import { firstWords, scanSql } from "./scan-sql.ts";
import type { SqlScan } from "./scan-sql.ts";
import { SqlLexer } from "./sql-lexer.ts";
import { COPY_FROM_STDIN, factsOf, ORDINARY } from "./statement-facts.ts";
import type { Refusal, StatementFacts } from "./statement-facts.ts";
import { collectLocks, LockCollector } from "./table-locks.ts";
import type { TableLock } from "./table-locks.ts";
import { unwrapTransaction } from "./unwrap-sql.ts";

export type { Analysis } from "./analysis.ts";
export { scanAnalysis } from "./scan-analysis.ts";

/**
 * Decides how a body may run, by PostgreSQL's own parser: what `publish` signs.
 *
 * @throws RunnerError `ENCODING`, `HEADER`
 * @throws RunnerError `SQL_SYNTAX` — the parser does not take it; `SQL_OPEN` — a quote or comment has no end
 * @throws RunnerError `TRANSACTION_CONTROL` — it ends or shapes a transaction, other than by one `BEGIN … COMMIT` around all of it
 * @throws RunnerError `STATEMENT_REFUSED` — a statement that no migration may hold, or not in a transaction where the header asks for one
 * @throws RunnerError `TOO_LARGE` — a statement that the parser gives up on
 */
export async function analyzeSql(bytes: Uint8Array, path: string): Promise<Analysis> {
  const body = readBody(bytes, path);
  if (isBlank(body.text)) return EMPTY;
  const parsed = await parseBody(body);
  if (parsed.problem !== undefined) throw problemError(body, scanSql(body.text), parsed.problem);
  return judge(body, parsed);
}

/**
 * As {@link analyzeSql} for a run without a signed release: fast where the lexer is sure, and where the parser does not
 * know the syntax the server is asked, which may be newer. Only a body left open is refused for its form.
 */
export async function analyzeUnsigned(bytes: Uint8Array, path: string): Promise<Analysis> {
  const scanned = scanAnalysis(bytes, path);
  if (scanned !== undefined) return scanned;
  const body = readBody(bytes, path);
  const parsed = await parseBody(body);
  if (parsed.problem === undefined) return judge(body, parsed);
  const scan = scanSql(body.text);
  if (scan.open !== undefined) throw problemError(body, scan, { message: "", index: body.text.length });
  const error = problemError(body, scan, parsed.problem);
  if (error.code !== "SQL_SYNTAX" || body.header.tx === "none") throw error;
  refuseScannedControl(body, scan);
  return { tx: "one", alone: false, locks: [], isEmpty: false };
}

interface SqlBody {
  readonly path: string;
  readonly bytes: Buffer;
  readonly text: string;
  readonly header: Header;
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
}

const EMPTY: Analysis = { tx: "one", alone: true, locks: [], isEmpty: true };

function readBody(bytes: Uint8Array, path: string): SqlBody {
  const text = decodeBody(bytes, path);
  return {
    path,
    bytes: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    text,
    header: parseHeader(text, path),
  };
}

function isBlank(text: string): boolean {
  return /^\ufeff?[ \t\n\v\f\r]*$/.test(text);
}

async function parseBody({ text, path }: SqlBody): Promise<ParsedBody> {
  const statements: AnalyzedStatement[] = [];
  const locks = new LockCollector();
  try {
    const problem = await parseSql(text, {
      visit({ offset, length, node }) {
        statements.push({ offset, length, facts: factsOf(node) });
        collectLocks(node, locks);
      },
      visitLarge({ offset, length, scanned }) {
        statements.push({ offset, length, facts: ORDINARY });
        return scanStatement(text, scanned, locks);
      },
    });
    return { statements, locks: locks.locks, problem };
  } catch (thrown) {
    // the parser, or a walk through its tree, met an expression nested too deeply
    if (!(thrown instanceof RangeError) && !(thrown instanceof RunnerError && thrown.code === "TOO_LARGE"))
      throw thrown;
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

/** The same by the first words alone, where the parser does not know the file's syntax. */
function refuseScannedControl(body: SqlBody, scan: SqlScan): void {
  const { text } = body;
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

function unitOffset({ bytes }: SqlBody, byteOffset: number): number {
  return bytes.toString("utf8", 0, byteOffset).length;
}

/** What the parser did not take, told as the mistake it most likely is. */
function problemError(body: SqlBody, scan: SqlScan, problem: SyntaxProblem): RunnerError {
  for (const statement of scan.statements) {
    if (statement.start <= problem.index && isCopyFromStdin(body.text, statement.start, statement.end)) {
      return refusalError(body, statement.start, COPY_FROM_STDIN);
    }
  }
  if (scan.backslash !== undefined && scan.backslash <= problem.index)
    return refusalError(body, scan.backslash, PSQL_COMMAND);
  if (scan.open !== undefined && scan.open.index <= problem.index) {
    return errorAt(
      body,
      scan.open.index,
      "SQL_OPEN",
      `the ${scan.open.what} that begins here has no end`,
      "close it",
    );
  }
  return errorAt(
    body,
    problem.index,
    "SQL_SYNTAX",
    problem.message,
    "correct it; PostgreSQL 18's parser was asked",
  );
}

function isCopyFromStdin(text: string, start: number, end: number): boolean {
  const lexer = new SqlLexer(text, start, end);
  if (!lexer.next() || lexer.text.toUpperCase() !== "COPY") return false;
  for (let previous = ""; lexer.next() && lexer.kind !== "string";) {
    const word = lexer.text.toUpperCase();
    if (previous === "FROM") return word === "STDIN";
    previous = word;
  }
  return false;
}

const PSQL_COMMAND: Refusal = {
  what: "a psql command; only SQL can be sent to the server",
  hint: "remove it (newer pg_dump writes \\restrict and \\unrestrict lines, which can simply go)",
};

function spell(kind: string): string {
  return kind.replaceAll("-", " ").toUpperCase();
}

function refusalError(body: SqlBody, index: number, refusal: Refusal): RunnerError {
  return errorAt(body, index, "STATEMENT_REFUSED", refusal.what, refusal.hint);
}

function controlError(body: SqlBody, index: number, what: string): RunnerError {
  return errorAt(
    body,
    index,
    "TRANSACTION_CONTROL",
    what,
    "remove it: the migration's transaction is opened and committed together with its history row",
  );
}

function errorAt(
  { text, path }: SqlBody,
  index: number,
  code: RunnerErrorCode,
  what: string,
  hint: string,
): RunnerError {
  const { line, column } = locateUnit(text, index);
  return new RunnerError(code, `${path}:${line}:${column}: ${what}`, {
    hint,
    fields: { migration: path, line, column },
  });
}
