import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";

import { scanAnalysis } from "../../src/migration/scan-analysis.ts";
import { analyzeSql } from "../../src/migration/analyze.ts";
import { decodeBody } from "../../src/migration/decode.ts";
import { parseHeader } from "../../src/migration/header.ts";
import { analyzeCommands } from "../../src/migration/mongo/analyze-commands.ts";
import { scanSql } from "../../src/migration/scan-sql.ts";
import { sqlToSend } from "../../src/migration/unwrap-sql.ts";
import type { Analysis } from "../../src/migration/analysis.ts";
import type { Subject } from "./subject.ts";

function filesIn(folder: string, suffix: string): readonly Buffer[] {
  const from = path.join(import.meta.dirname, "..", folder);
  return readdirSync(from)
    .filter((name) => name.endsWith(suffix))
    .map((name) => readFileSync(path.join(from, name)))
    .filter(({ length }) => length <= 4_096);
}

const headers = [
  "-- lockkeeper: tx=none lock_timeout=2s\nSELECT 1;",
  "-- lockkeeper: statement_timeout=10m\n\n-- a word\nCREATE TABLE a ();",
  "-- lockkeeper: backfill table=a key=id batch=500\nUPDATE a SET b = 1 WHERE id IN (SELECT id FROM batch);",
].map((text) => Buffer.from(text));

const sql = [
  ...filesIn("vectors/split-sql", ".sql"),
  ...filesIn("corpus/superplane", ".up.sql"),
  ...filesIn("peers/folder/golang-migrate", ".sql"),
  ...headers,
];
const sqlWords = [
  "BEGIN;",
  "COMMIT;",
  "$$",
  "$tag$",
  "E'\\'",
  "U&'",
  "/*",
  "*/",
  "--",
  "\\.",
  "COPY a FROM STDIN;",
  "CONCURRENTLY",
  "CREATE INDEX",
  "VACUUM;",
  "DO $$ BEGIN END $$;",
  "BEGIN ATOMIC",
  "; END",
  "standard_conforming_strings = off",
  "CREATE DATABASE a;",
  "(",
  ")",
  ";",
];

/** A statement list lies within the body, in its order. */
function flawOf({ statements }: Analysis, { length: size }: Buffer): string | undefined {
  let end = 0;
  for (const { offset, length } of statements ?? []) {
    if (offset < end || length < 1 || offset + length > size) return "a statement outside of its body";
    end = offset + length;
  }
  return undefined;
}

/** What reads the bodies of migrations: SQL, its header, and MongoDB's commands. */
export const bodySubjects: readonly Subject[] = [
  {
    name: "sql-header",
    corpus: headers,
    words: [
      "-- lockkeeper:",
      "tx=none",
      "lock_timeout=",
      "batch=",
      'throttle="',
      "backfill",
      "key=a,b",
      "0",
      "24d",
    ],
    read(input) {
      parseHeader(decodeBody(input, "1_a.up.sql"), "1_a.up.sql");
      return undefined;
    },
  },
  {
    name: "sql-lexer",
    corpus: sql,
    words: sqlWords,
    read(input) {
      const text = decodeBody(input, "1_a.up.sql");
      const scan = scanSql(text);
      const scanned = scanAnalysis(input, "1_a.up.sql");
      sqlToSend(text);
      const inOrder = scan.statements.every(
        ({ start, end }, at) => start >= (scan.statements[at - 1]?.end ?? 0) && end <= text.length,
      );
      return inOrder ? scanned && flawOf(scanned, input) : "a statement outside of its text";
    },
  },
  {
    name: "sql-body",
    corpus: sql,
    words: sqlWords,
    async read(input) {
      return flawOf(await analyzeSql(input, "1_a.up.sql"), input);
    },
  },
  {
    name: "mongodb-body",
    corpus: [
      ...filesIn("peers/folder/golang-migrate-mongodb", ".json"),
      Buffer.from(
        '[{"insert":"a","documents":[{"_id":{"$oid":"65a000000000000000000001"},"n":{"$numberLong":"9223372036854775807"},"d":{"$date":{"$numberLong":"0"}},"x":{"$binary":{"base64":"AAEC","subType":"00"}},"r":{"$regularExpression":{"pattern":"^a","options":"i"}},"t":{"$timestamp":{"t":1,"i":2}},"e":{"$numberDecimal":"1.5E+3"}}]}]',
      ),
      Buffer.from(
        '[{"$lockkeeper":{"tx":"none"}},{"createIndexes":"a","indexes":[{"key":{"b":1},"name":"b_1"}]}]',
      ),
    ],
    words: [
      "$numberLong",
      "$numberDouble",
      "$oid",
      "$date",
      "$binary",
      "$code",
      "$where",
      "$function",
      "$undefined",
      "$minKey",
      "NaN",
      "$out",
      "$merge",
    ],
    read(input) {
      return flawOf(analyzeCommands(input, "1_a.up.json"), input);
    },
  },
];
