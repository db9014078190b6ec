import { describe, expect, onTestFinished, test } from "vitest";

import { makeRecord, writeRecord, type AuditFacts } from "../../src/audit/record.ts";
import { selectEntries, type AuditSelection } from "../../src/audit/select.ts";
import { openDriver } from "../../src/driver/open.ts";
import { describeEntry, formatEntries } from "../../src/cli/show-audit.ts";
import { makeOutput } from "../../src/cli/output.ts";
import { createDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";

const all: AuditSelection = { last: 10_000, run: undefined, of: undefined, since: undefined };
const hour = (n: number): Date => new Date(Date.UTC(2026, 10, 1) + n * 3_600_000);

/** A log of `count` entries, one an hour, each the tenth about another target and run; numbers as a table that lost some would have. */
async function site(count: number, lost: readonly number[] = []) {
  const database = await createDatabase();
  const driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
  const texts = Array.from({ length: count }, (_, index) => {
    const name = index % 10 === 9 ? "billing-prod" : "orders-prod";
    const facts: AuditFacts = {
      event: "run.begun",
      action: "apply",
      target: name,
      stream: name.replace("-prod", ""),
      run: `${name}.${Math.floor(index / 10)}`,
      principal: { issuer: "cli", subject: "ada\u202e\u0007", rule: null, claims: {} },
    };
    return writeRecord(makeRecord(facts, hour(index)));
  });
  await driver.audit.append(texts[0] ?? "", never);
  await database.query("DELETE FROM lockkeeper.audit");
  await database.query(
    `INSERT INTO lockkeeper.audit (seq, previous, sha256, text)
     SELECT n, '', md5(n::text), ($1::text[])[n] FROM generate_series(1, $2::int) n WHERE n <> ALL ($3::int[])`,
    [texts, count, lost],
  );
  return {
    driver,
    database,
    numbers: async (wanted: Partial<AuditSelection>): Promise<readonly number[]> => {
      const found = await selectEntries(driver.audit, { ...all, ...wanted }, never);
      return found.map(({ entry }) => entry.seq);
    },
  };
}

const range = (from: number, to: number): readonly number[] =>
  Array.from({ length: to - from + 1 }, (_, index) => from + index);

describe("what is shown of an audit log", () => {
  test("are the newest entries that fit, oldest first, from as many pages as it takes", async () => {
    const { numbers } = await site(1_001);
    expect(await numbers({ last: 3 })).toEqual([999, 1000, 1001]);
    expect(await numbers({})).toEqual(range(1, 1_001));
    expect(await numbers({ of: "billing", last: 2 })).toEqual([990, 1000]);
    expect(await numbers({ of: "billing-prod" })).toHaveLength(100);
    expect(await numbers({ run: "orders-prod.2" })).toEqual(range(21, 29));
    expect(await numbers({ since: hour(997) })).toEqual([998, 999, 1000, 1001]);
    expect(await numbers({ since: hour(100), of: "billing", last: 1 })).toEqual([1000]);
    expect(await numbers({ since: hour(100_000) })).toEqual([]);
  });

  test("is everything that is left where somebody took entries out, each once", async () => {
    const lost = [...range(2, 5), 300, ...range(700, 950)];
    const { numbers, database } = await site(1_000, lost);
    const left = range(1, 1_000).filter((seq) => !lost.includes(seq));
    expect(await numbers({})).toEqual(left);
    await database.query("UPDATE lockkeeper.audit SET seq = 9007199254740991 WHERE seq = 1000");
    expect(await numbers({})).toEqual([...left.slice(0, -1), Number.MAX_SAFE_INTEGER]);
  });

  test("of an empty database is nothing", async () => {
    const database = await createDatabase();
    const driver = await openDriver(database.url);
    onTestFinished(() => driver.close());
    expect(await selectEntries(driver.audit, all, never)).toEqual([]);
  });

  test("cannot act on a terminal, and tells what another version wrote", async () => {
    const { driver } = await site(1);
    await driver.audit.append('{"schema":"urn:lockkeeper:audit:v9"}', never);
    const sink = { isTerminal: false, columns: undefined, write: () => undefined };
    const { paint } = makeOutput(sink, sink, { isJson: false, isVerbose: false, hasColor: false });
    const entries = await selectEntries(driver.audit, all, never);
    const table = formatEntries(entries, paint.out);
    expect(table).toMatch(/^[\n -~]+$/);
    expect(table).toContain("ada\\u{202e}\\u{7}");
    expect(table).toContain("written by another version");
    expect(entries.map(describeEntry)).toMatchObject([
      { seq: 1, target: "orders-prod", record: { run: "orders-prod.0" } },
      { seq: 2, target: null, record: { schema: "urn:lockkeeper:audit:v9" } },
    ]);
  });
});
