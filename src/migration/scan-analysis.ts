import type { Analysis } from "./analysis.ts";
import { decodeBody } from "./decode.ts";
import { scanSql } from "./scan-sql.ts";
import type { ScannedStatement } from "./scan-sql.ts";
import { isBlank } from "./sql-body.ts";
import { LockCollector } from "./lock-collector.ts";
import { TokenReader } from "./token-reader.ts";
import { unwrapTransaction } from "./unwrap-sql.ts";

/**
 * What `analyzeSql` would say, without the parser; undefined where the lexer alone cannot be sure.
 *
 * It knows the statements that most migrations consist of; whatever is not plainly one of them is left to the parser.
 *
 * @throws RunnerError `ENCODING`
 */
export function scanAnalysis(bytes: Uint8Array, path: string): Analysis | undefined {
  const text = decodeBody(bytes, path);
  if (NEEDS_PARSER.test(text)) return undefined;
  const scan = scanSql(text);
  if (!scan.isSure) return undefined;
  const locks = new LockCollector();
  const inner = unwrapTransaction(text);
  for (const statement of scan.statements) {
    if (inner !== undefined && (statement.start < inner.start || statement.start >= inner.end)) continue;
    if (!readStatement(new TokenReader(text, statement), locks)) return undefined;
  }
  const isEmpty = scan.statements.length === 0 && isBlank(text);
  return { tx: "one", alone: true, locks: locks.locks, isEmpty };
}

/**
 * Whether the lexer alone can tell that one statement runs in a transaction and leaves nothing behind in the session;
 * then notes what it locks and makes.
 */
export function scanStatement(text: string, statement: ScannedStatement, locks: LockCollector): boolean {
  if (NEEDS_PARSER.test(text.slice(statement.start, statement.end))) return false;
  return readStatement(new TokenReader(text, statement), locks);
}

/** A header, our own schema, and what may outlive its transaction: words that must be seen in their place. */
const NEEDS_PARSER = /lockkeeper|set_config|pg_temp|advisory_\w*lock|dblink|u&"/i;

/** Notes what the statement locks and makes; false where it is none that is known here. */
function readStatement(tokens: TokenReader, locks: LockCollector): boolean {
  switch (tokens.word()) {
    case "CREATE":
      return readCreate(tokens, locks);
    case "ALTER":
      return readAlter(tokens, locks);
    case "DROP":
      return readDrop(tokens, locks);
    case "INSERT":
      return tokens.skip("INTO") && takeName("ROW EXCLUSIVE", tokens, locks);
    case "UPDATE":
      tokens.skip("ONLY");
      return takeName("ROW EXCLUSIVE", tokens, locks);
    case "DELETE":
      if (!tokens.skip("FROM")) return false;
      tokens.skip("ONLY");
      return takeName("ROW EXCLUSIVE", tokens, locks);
    case "TRUNCATE":
      tokens.skip("TABLE");
      return takeNames("ACCESS EXCLUSIVE", tokens, locks);
    case "COMMENT":
      return tokens.skip("ON") && readComment(tokens, locks);
    case "GRANT":
    case "REVOKE":
      return true;
    case "SELECT":
      return !tokens.hasWord("INTO");
    default:
      return false;
  }
}

function readCreate(tokens: TokenReader, locks: LockCollector): boolean {
  const isReplacing = tokens.skip("OR") && tokens.skip("REPLACE");
  tokens.skip("UNLOGGED");
  tokens.skip("UNIQUE");
  tokens.skip("CONSTRAINT");
  switch (tokens.word()) {
    case "TABLE":
      return readCreateTable(tokens, locks);
    case "INDEX":
      return readCreateIndex(tokens, locks);
    case "VIEW":
      return !isReplacing || takeName("ACCESS EXCLUSIVE", tokens, locks);
    case "TRIGGER":
      return tokens.skipTo("ON") && takeName("SHARE ROW EXCLUSIVE", tokens, locks);
    case "POLICY":
      return tokens.skipTo("ON") && takeName("ACCESS EXCLUSIVE", tokens, locks);
    case "FUNCTION":
    case "PROCEDURE":
    case "TYPE":
    case "DOMAIN":
    case "SEQUENCE":
    case "SCHEMA":
    case "EXTENSION":
      return true;
    default:
      return false;
  }
}

function readCreateTable(tokens: TokenReader, locks: LockCollector): boolean {
  const ifNotExists = tokens.skip("IF", "NOT", "EXISTS");
  const table = tokens.name();
  if (table === undefined || !tokens.isAt("(") || !readReferences(table, tokens, locks)) return false;
  if (!ifNotExists) locks.create(table);
  return true;
}

function readCreateIndex(tokens: TokenReader, locks: LockCollector): boolean {
  if (tokens.skip("CONCURRENTLY")) return false;
  tokens.skip("IF", "NOT", "EXISTS");
  if (!tokens.skip("ON") && (tokens.name() === undefined || !tokens.skip("ON"))) return false;
  tokens.skip("ONLY");
  return takeName("SHARE", tokens, locks);
}

/** The rest of a table's definition or of one action: foreign keys, and no word that changes what it is. */
function readReferences(table: string, tokens: TokenReader, locks: LockCollector): boolean {
  while (tokens.isOpen) {
    if (tokens.depth === 0 && (tokens.isAt(",") || tokens.isAt("INHERITS") || tokens.isAt("AS")))
      return tokens.isAt(",");
    const follows = tokens.advance();
    if (follows !== "REFERENCES") continue;
    const referred = tokens.name();
    if (referred === undefined) return false;
    if (referred !== table) locks.take("SHARE ROW EXCLUSIVE", referred);
  }
  return true;
}

function readAlter(tokens: TokenReader, locks: LockCollector): boolean {
  switch (tokens.word()) {
    case "TYPE":
    case "SEQUENCE":
    case "FUNCTION":
      return true;
    case "TABLE":
      break;
    default:
      return false;
  }
  tokens.skip("IF", "EXISTS");
  tokens.skip("ONLY");
  const table = tokens.isAt("ALL") ? undefined : tokens.name();
  if (table === undefined) return false;
  do {
    const lock = alterLock(tokens);
    if (lock === undefined) return false;
    locks.take(lock, table);
    if (!readReferences(table, tokens, locks)) return false;
  } while (tokens.skip(","));
  return !tokens.isOpen;
}

/** Reads the beginning of one action of `ALTER TABLE`. */
function alterLock(
  tokens: TokenReader,
): "ACCESS EXCLUSIVE" | "SHARE ROW EXCLUSIVE" | "SHARE UPDATE EXCLUSIVE" | undefined {
  switch (tokens.word()) {
    case "ADD":
      if (tokens.skip("CONSTRAINT") && tokens.name() === undefined) return undefined;
      return tokens.isAt("FOREIGN") ? "SHARE ROW EXCLUSIVE" : "ACCESS EXCLUSIVE";
    case "ALTER":
      tokens.skip("COLUMN");
      if (tokens.name() === undefined) return undefined;
      if (tokens.skip("SET"))
        return tokens.isAt("STATISTICS") || tokens.isAt("(") ? "SHARE UPDATE EXCLUSIVE" : "ACCESS EXCLUSIVE";
      return tokens.isAt("RESET") ? "SHARE UPDATE EXCLUSIVE" : "ACCESS EXCLUSIVE";
    case "SET":
      if (tokens.isAt("WITHOUT")) return undefined;
      return tokens.isAt("(") ? "SHARE UPDATE EXCLUSIVE" : "ACCESS EXCLUSIVE";
    case "VALIDATE":
    case "RESET":
      return "SHARE UPDATE EXCLUSIVE";
    case "ENABLE":
    case "DISABLE":
      if (tokens.isAt("TRIGGER")) return "SHARE ROW EXCLUSIVE";
      return tokens.isAt("ROW") ? "ACCESS EXCLUSIVE" : undefined;
    case "DROP":
    case "RENAME":
    case "OWNER":
    case "FORCE":
    case "REPLICA":
      return "ACCESS EXCLUSIVE";
    default:
      return undefined;
  }
}

function readDrop(tokens: TokenReader, locks: LockCollector): boolean {
  const kind = tokens.word();
  if (kind === "MATERIALIZED" && !tokens.skip("VIEW")) return false;
  if (tokens.skip("CONCURRENTLY")) return false;
  tokens.skip("IF", "EXISTS");
  switch (kind) {
    case "TABLE":
    case "VIEW":
    case "MATERIALIZED":
      return takeNames("ACCESS EXCLUSIVE", tokens, locks);
    case "INDEX":
      locks.take("ACCESS EXCLUSIVE", undefined);
      return true;
    case "TRIGGER":
    case "POLICY":
      return tokens.name() !== undefined && tokens.skip("ON") && takeName("ACCESS EXCLUSIVE", tokens, locks);
    case "FUNCTION":
    case "PROCEDURE":
    case "TYPE":
    case "DOMAIN":
    case "SEQUENCE":
    case "SCHEMA":
    case "EXTENSION":
      return true;
    default:
      return false;
  }
}

function readComment(tokens: TokenReader, locks: LockCollector): boolean {
  switch (tokens.word()) {
    case "TABLE":
    case "VIEW":
      return takeName("SHARE UPDATE EXCLUSIVE", tokens, locks);
    case "COLUMN": {
      const table = tokens.name("without last");
      if (table !== undefined) locks.take("SHARE UPDATE EXCLUSIVE", table);
      return table !== undefined;
    }
    case "TYPE":
    case "FUNCTION":
    case "SCHEMA":
    case "EXTENSION":
    case "INDEX":
    case "SEQUENCE":
      return true;
    default:
      return false;
  }
}

type Lock = Parameters<LockCollector["take"]>[0];

function takeName(lock: Lock, tokens: TokenReader, locks: LockCollector): boolean {
  const table = tokens.name();
  if (table === undefined) return false;
  locks.take(lock, table);
  return true;
}

function takeNames(lock: Lock, tokens: TokenReader, locks: LockCollector): boolean {
  do {
    tokens.skip("ONLY");
    if (!takeName(lock, tokens, locks)) return false;
    tokens.skip("*");
  } while (tokens.skip(","));
  return true;
}
