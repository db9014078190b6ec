import { describe, expect, onTestFinished, test } from "vitest";

import { converge } from "../../src/index.ts";
import { openSource } from "../../src/source/open.ts";
import { startS3 } from "../support/bucket.ts";
import { createDatabase } from "../support/database.ts";
import { needs } from "../support/parts.ts";
import { makeKey, publishTo } from "../support/release.ts";

needs("versitygw");

/** Rows of one body; each is about 1 KiB of SQL. */
const rowsPerBody = 5_000;
const bodies = 10;

describe("a release of 50 MB", () => {
  test("is published to S3, verified and applied whole", { timeout: 180_000 }, async () => {
    const s3 = await startS3("versitygw");
    onTestFinished(() => s3.stop());
    const url = `${await s3.createBucket()}/large`;
    const database = await createDatabase();
    const key = makeKey();

    const filler = "x".repeat(1_000);
    const insert = (body: number): string => {
      const rows = Array.from(
        { length: rowsPerBody },
        (_, row) => `(${body * rowsPerBody + row}, '${filler}')`,
      );
      return `INSERT INTO large VALUES\n${rows.join(",\n")};`;
    };
    const files: Record<string, string> = {
      "1_large.up.sql": "CREATE TABLE large (id int PRIMARY KEY, filler text);",
    };
    for (let body = 0; body < bodies; body += 1) files[`${body + 2}_rows.up.sql`] = insert(body);
    const bytes = Object.values(files).reduce((sum, text) => sum + text.length, 0);
    expect(bytes).toBeGreaterThan(50_000_000);

    await publishTo(await openSource(url, s3.options), files, { keys: [key], stream: "large" });
    const result = await converge({
      source: url,
      stream: "large",
      trust: { threshold: 1, keys: [key.publicPem] },
      database: database.url,
      storage: s3.options,
    });
    expect(result).toMatchObject({ outcome: "applied", to: { length: bodies + 1 } });
    expect(
      await database.query("SELECT count(*)::int AS rows, sum(length(filler))::int AS bytes FROM large"),
    ).toEqual([{ rows: rowsPerBody * bodies, bytes: rowsPerBody * bodies * filler.length }]);
  });
});
