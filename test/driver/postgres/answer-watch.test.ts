import { describe, expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../../src/driver/open.ts";
import { messageKind } from "../../crash/point.ts";
import { startDatabaseProxy } from "../../crash/database-proxy.ts";
import { createDatabase, type TestDatabase } from "../../support/database.ts";
import { leaseOptions, settings, statementStep, transactionSteps } from "../../support/steps.ts";

/** A database behind a network that swallows the first answer to a message of this kind, and lets all other connections be. */
async function swallowing(kind: "body" | "statement-outside"): Promise<{
  readonly database: TestDatabase;
  readonly url: string;
  readonly swallowed: () => boolean;
}> {
  const database = await createDatabase();
  const upstream = new URL(database.url);
  let isSwallowed = false;
  const proxy = await startDatabaseProxy({
    upstreamPort: Number(upstream.port),
    watch: ({ text, line }) => {
      if (isSwallowed || messageKind(text) !== kind) return Promise.resolve(undefined);
      isSwallowed = true;
      const strike = (): Promise<"drop"> => {
        line.silence();
        return Promise.resolve("drop");
      };
      return Promise.resolve({ moment: "after", strike });
    },
  });
  onTestFinished(() => proxy[Symbol.asyncDispose]());
  upstream.port = String(proxy.port);
  upstream.searchParams.set("sslmode", "disable");
  return { database, url: upstream.href, swallowed: () => isSwallowed };
}

describe.concurrent("an answer that never comes, while the heartbeats go on", { timeout: 90_000 }, () => {
  test("is not waited for for ever: the body counts once, and the run goes on", async () => {
    const { database, url, swallowed } = await swallowing("body");
    await database.query("CREATE TABLE done (n int)");
    const driver = await openDriver(url);
    onTestFinished(() => driver.close());
    const steps = await transactionSteps(
      [1, 2, 3].map((n) => ({ path: `${n}_n.up.sql`, up: `INSERT INTO done VALUES (${n});` })),
    );
    const { done, failure } = await driver.withLease(leaseOptions(), (session) =>
      session.applyInTransactions(steps, settings),
    );
    expect({ done: done.length, failure, swallowed: swallowed() }).toEqual({
      done: 3,
      failure: null,
      swallowed: true,
    });
    expect(await database.query("SELECT n FROM done ORDER BY n")).toEqual([{ n: 1 }, { n: 2 }, { n: 3 }]);
  });

  test("to a statement outside a transaction is found out from the database", async () => {
    const { database, url, swallowed } = await swallowing("statement-outside");
    await database.query("CREATE TABLE t (a int)");
    const driver = await openDriver(url);
    onTestFinished(() => driver.close());
    const said: string[] = [];
    const step = await statementStep("CREATE INDEX CONCURRENTLY i ON t (a);");
    await driver.withLease(leaseOptions(), (session) =>
      session.applyStatements(step, settings, (progress) =>
        said.push(progress.kind === "probed" ? progress.verdict : progress.kind),
      ),
    );
    expect({ said, swallowed: swallowed() }).toEqual({ said: ["done", "statement"], swallowed: true });
    expect(await database.query("SELECT indisvalid FROM pg_index WHERE indrelid = 't'::regclass")).toEqual([
      { indisvalid: true },
    ]);
  });
});
