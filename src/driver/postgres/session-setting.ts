import type { Statement } from "../../migration/migration.ts";
import { SqlLexer } from "../../migration/sql-lexer.ts";
import type { StatementStep } from "../session.ts";

/**
 * The settings that statements before `index` made for the rest of their file: `SET`, `RESET`, and the `set_config`
 * of a pg_dump. Sent again before each statement, because each is cleaned up after, and a resumed body begins in the middle.
 */
export function preludeOf(step: StatementStep, index: number): readonly string[] {
  return step.statements
    .slice(0, index)
    .map((statement) => textOf(step, statement))
    .filter(isSetting);
}

function isSetting(sql: string): boolean {
  const lexer = new SqlLexer(sql);
  const words: string[] = [];
  while (words.length < 4 && lexer.next()) words.push(lexer.text.toUpperCase());
  const [first, second, third, fourth] = words;
  if (first === "RESET") return true;
  if (first === "SET") return second !== "LOCAL" && second !== "CONSTRAINTS" && second !== "TRANSACTION";
  return (
    first === "SELECT" &&
    (second === "SET_CONFIG" || (second === "PG_CATALOG" && third === "." && fourth === "SET_CONFIG"))
  );
}

function textOf(step: StatementStep, statement: Statement): string {
  return step.bytes.subarray(statement.offset, statement.offset + statement.length).toString("utf8");
}
