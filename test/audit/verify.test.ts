import { describe, expect, onTestFinished, test } from "vitest";

import { ExpectedLinks } from "../../src/audit/expected.ts";
import { makeRecord, writeRecord } from "../../src/audit/record.ts";
import { verifyAudit } from "../../src/audit/verify.ts";
import type { Driver } from "../../src/driver/driver.ts";
import { openDriver } from "../../src/driver/open.ts";
import { linkOf, type AuditEntry, type AuditLink } from "../../src/history/audit.ts";
import { auditLine } from "../../src/report/log.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";
import { writeAnew } from "./records.ts";

interface Site {
  readonly database: TestDatabase;
  readonly driver: Driver;
  readonly entries: readonly AuditEntry[];
  /** What the proof says, `expected` being known from elsewhere. */
  verify(...expected: readonly (AuditLink | undefined)[]): Promise<unknown>;
}

const none: ReadonlyMap<number, string> = new Map();
const factsOf = (n: number) =>
  ({
    event: "paused",
    action: "pause",
    target: "orders-prod",
    stream: "orders",
    principal: { issuer: "cli", subject: "ada", rule: null, claims: {} },
    reason: `reason ${n}`,
  }) as const;

/** A log of this many entries. */
async function site(count: number): Promise<Site> {
  const database = await createDatabase();
  const driver = await openDriver(database.url);
  onTestFinished(() => driver.close());
  const entries: AuditEntry[] = [];
  for (let n = 1; n <= count; n += 1)
    entries.push(await driver.audit.append(writeRecord(makeRecord(factsOf(n), new Date())), never));
  return {
    database,
    driver,
    entries,
    verify: (...expected) =>
      verifyAudit(
        driver.audit,
        new Map(expected.flatMap((link) => (link === undefined ? [] : [[link.seq, link.sha256] as const]))),
        never,
      ).then(
        (found) => found,
        (error: unknown) => {
          const { code, fields } = error as { code: string; fields: { seq: number; fault: string } };
          return `${code} ${fields.fault} at ${fields.seq}`;
        },
      ),
  };
}

describe("the proof of an audit log", () => {
  test("of an empty database is a log without a head", async () => {
    const { verify } = await site(0);
    expect(await verify()).toEqual({ entries: 0, head: null, expected: 0 });
    expect(await verify({ seq: 1, sha256: "0".repeat(64) })).toBe("AUDIT_BROKEN missing at 1");
  });

  test("goes through every page and gives the head, and the links that were expected", async () => {
    const { database, verify, driver } = await site(2);
    await database.query(`INSERT INTO lockkeeper.audit (seq, previous, sha256, text)
      WITH RECURSIVE chain AS (SELECT seq, sha256, previous, text FROM lockkeeper.audit WHERE seq = 2 UNION ALL
        SELECT seq + 1, encode(sha256(convert_to(sha256 || E'\\n' || text, 'UTF8')), 'hex'), sha256, text FROM chain WHERE seq < 1001)
      SELECT seq, previous, sha256, text FROM chain WHERE seq > 2`);
    const [last] = await driver.audit.read({ after: 0, limit: 1, newest: true }, never);
    const [middle] = await driver.audit.read({ after: 599, limit: 1 }, never);
    const head = { seq: 1001, sha256: last?.sha256 };
    expect(await verify()).toEqual({ entries: 1001, head, expected: 0 });
    expect(await verify(last, middle)).toEqual({ entries: 1001, head, expected: 2 });
    await database.query("UPDATE lockkeeper.audit SET text = replace(text, 'ada', 'eve') WHERE seq = 777");
    expect(await verify()).toBe("AUDIT_BROKEN altered at 777");
  });

  test("finds a text that was edited, with its own digest left or computed anew", async () => {
    const { database, verify, entries } = await site(5);
    const edited = entries[2]?.text.replace("ada", "eve") ?? "";
    await database.query("UPDATE lockkeeper.audit SET text = $1 WHERE seq = 3", [edited]);
    expect(await verify()).toBe("AUDIT_BROKEN altered at 3");
    const sha256 = linkOf(entries[2]?.previous ?? "", edited);
    await database.query("UPDATE lockkeeper.audit SET sha256 = $1 WHERE seq = 3", [sha256]);
    expect(await verify()).toBe("AUDIT_BROKEN relinked at 4");
  });

  test("finds a row that was taken out, put in, or moved", async () => {
    const { database, verify, entries } = await site(6);
    await database.query("DELETE FROM lockkeeper.audit WHERE seq IN (3, 4)");
    expect(await verify()).toBe("AUDIT_BROKEN gap at 3");
    await database.query("UPDATE lockkeeper.audit SET seq = seq - 2 WHERE seq > 4");
    expect(await verify()).toBe("AUDIT_BROKEN relinked at 3");
    await database.query("DELETE FROM lockkeeper.audit WHERE seq = 1");
    expect(await verify()).toBe("AUDIT_BROKEN gap at 1");
    await database.query("UPDATE lockkeeper.audit SET seq = 1, previous = $1 WHERE seq = 2", [
      "0".repeat(64),
    ]);
    expect(await verify()).toBe("AUDIT_BROKEN altered at 1");
    await database.query("DELETE FROM lockkeeper.audit");
    await database.query(
      "INSERT INTO lockkeeper.audit (seq, previous, sha256, text) VALUES (1, $1, $2, $3)",
      [entries[4]?.previous, entries[4]?.sha256, entries[4]?.text],
    );
    expect(await verify()).toBe("AUDIT_BROKEN relinked at 1");
  });

  test("finds that the end was cut off only with what was written down elsewhere", async () => {
    const { database, verify, entries } = await site(5);
    await database.query("DELETE FROM lockkeeper.audit WHERE seq > 3");
    expect(await verify()).toMatchObject({ entries: 3 });
    expect(await verify(entries[2])).toMatchObject({ entries: 3, expected: 1 });
    expect(await verify(entries[2], entries[4], entries[3])).toBe("AUDIT_BROKEN missing at 4");
    // and what is appended afterwards does not hide it
    const driver = await openDriver(database.url);
    for (let n = 0; n < 5; n += 1)
      await driver.audit.append(writeRecord(makeRecord(factsOf(n), new Date())), never);
    await driver.close();
    expect(await verify()).toMatchObject({ entries: 8 });
    expect(await verify(entries[4])).toBe("AUDIT_BROKEN rewritten at 5");
  });

  test("finds that all of it was written anew only with what was written down elsewhere, and then at any entry", async () => {
    const { database, verify, entries } = await site(5);
    await writeAnew(database, (was) =>
      was.map(({ text, seq }) => (seq === 2 ? text.replace("ada", "eve") : text)),
    );
    expect(await verify()).toMatchObject({ entries: 5 });
    expect(await verify(entries[0])).toMatchObject({ entries: 5, expected: 1 });
    for (const entry of entries.slice(1)) {
      expect(await verify(entry)).toBe(`AUDIT_BROKEN rewritten at ${entry.seq}`);
    }
  });

  test("can be repeated with a shell", async () => {
    const { entries } = await site(1);
    const { execFileSync } = await import("node:child_process");
    const [entry] = entries;
    const shell = 'printf "%s\\n%s" "$1" "$2" | sha256sum';
    const sum = execFileSync("sh", ["-c", shell, "sh", entry?.previous ?? "", entry?.text ?? ""], {
      encoding: "utf8",
    });
    expect(sum.split(" ")[0]).toBe(entry?.sha256);
  });
});

describe("what is expected", () => {
  const entry = {
    seq: 7,
    previous: "a".repeat(64),
    sha256: "b".repeat(64),
    text: JSON.stringify(makeRecord(factsOf(1), new Date())),
  };
  const line = (target: string, change: object = {}): string => {
    const { level, event, fields } = auditLine({ ...entry, ...change }, target);
    return JSON.stringify({ time: new Date().toISOString(), level, event, ...fields });
  };

  test("is a number with a digest, or the lines of a server's log about the same target", () => {
    const expected = new ExpectedLinks("orders-prod");
    expected.add(`3:${"c".repeat(64)}`);
    expected.addLine("");
    expected.addLine("{");
    expected.addLine('{"level":"info","event":"http.request","status":200}');
    expected.addLine(line("billing", { seq: 8 }));
    expected.addLine(line("orders-prod"));
    expected.addLine(line("orders-prod"));
    expected.addLine(JSON.stringify({ target: "orders-prod", audit: { seq: 9, sha256: entry.sha256 } }));
    expected.addLine(JSON.stringify({ at: "…", kind: "audit", seq: 10, sha256: entry.sha256 }));
    expect([...expected.links]).toEqual([
      [3, "c".repeat(64)],
      [7, entry.sha256],
      [9, entry.sha256],
      [10, entry.sha256],
    ]);
  });

  test("is refused where it is nothing of the kind", () => {
    const expected = new ExpectedLinks(undefined);
    for (const wrong of [
      "",
      "3",
      "3:abc",
      `0:${"c".repeat(64)}`,
      `-1:${"c".repeat(64)}`,
      `3:${"C".repeat(64)}`,
    ])
      expect(() => expected.add(wrong), wrong).toThrow(expect.objectContaining({ code: "USAGE" }));
    for (const wrong of [{ seq: 0 }, { seq: 1.5 }, { seq: "1" }, { seq: 2 ** 60 }, { sha256: "b" }])
      expected.addLine(line("orders-prod", wrong));
    expect(expected.links).toEqual(none);
  });

  test("that itself gives one entry two digests is proof that it was written anew", () => {
    const expected = new ExpectedLinks(undefined);
    expected.addLine(line("orders-prod"));
    expect(() => expected.addLine(line("orders-prod", { sha256: "d".repeat(64) }))).toThrow(
      expect.objectContaining({
        code: "AUDIT_BROKEN",
        fields: expect.objectContaining({ seq: 7 }) as unknown,
      }),
    );
  });
});

describe("a record", () => {
  test("is one line of ASCII, whatever is in it, and the same when it is read", () => {
    const facts = {
      ...factsOf(1),
      reason: "Zürich\n\u2028日本 🙂 \ud800 \u0000 \"'\\",
      principal: { issuer: "i", subject: "\u202eabc", rule: "r", claims: { "/a~1b": "é", ok: true, n: 1 } },
    };
    const record = makeRecord(facts, new Date(0));
    const text = writeRecord(record);
    expect(text).toMatch(/^[\x20-\x7e]+$/);
    expect(JSON.parse(text)).toEqual(JSON.parse(JSON.stringify(record)));
  });

  test("stays small, however long what it is told", () => {
    const long = "x".repeat(1_000_000);
    const migrations = Array.from({ length: 100_000 }, (_, index) => ({
      seq: index + 1,
      path: `${index}_${"p".repeat(180)}.up.sql`,
      direction: "up" as const,
      sha256: "f".repeat(64),
      ms: 1,
    }));
    const principal = { issuer: long, subject: long, rule: "r", claims: { [long]: long } };
    const record = makeRecord({ ...factsOf(1), reason: long, principal, migrations }, new Date());
    expect(Buffer.byteLength(writeRecord(record))).toBeLessThan(64 * 1024);
    expect(record.allMigrations).toMatchObject({ count: 100_000 });
  });
});
