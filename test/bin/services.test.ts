import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import { folderWith, run, start } from "./program.ts";

const registry = `
service: orders
database: orders
migrations:
  - version: 2
    breaking: true
    dependencies: [{ service: billing, min-version: 2 }]
`;

const files = {
  "orders/1_a.up.sql": "create table a (id int);",
  "orders/2_b.up.sql": "create table b (id int);",
  "orders/.migration-registry.yaml": registry,
  "billing/1_a.up.sql": "create table a (id int);",
  "billing/2_b.up.sql": "create table b (id int);",
};

/** Two services with a database each, their signed releases, and a configuration that knows both. */
async function site(more: Readonly<Record<string, string>> = {}, ofOrders = "services: { billing: money }") {
  const [orders, billing] = await Promise.all([createDatabase(), createDatabase()]);
  const target = (stream: string, url: string, rest: string): string =>
    `{ engine: postgres, stream: ${stream}, source: ./released/${stream}, trust: t, database: { url: "${url}" }, limits: { wait: 1m }, ${rest} }`;
  const folder = await folderWith({
    ...files,
    "lockkeeper.yaml": `
version: 1
trust: { t: { keys: [key.pub] } }
targets:
  orders: ${target("orders", orders.url, ofOrders)}
  money: ${target("billing", billing.url, "")}
`,
    ...more,
  });
  const call = (...argv: readonly string[]) => run(argv, folder);
  await call("keygen", "--out", "key");
  const publish = (stream: string, ...rest: readonly string[]) =>
    call("publish", `./${stream}`, `./released/${stream}`, "--stream", stream, "--key", "key", ...rest);
  return { folder, call, publish, start: (...argv: readonly string[]) => start(argv, folder) };
}

describe("services on the command line", () => {
  test(
    "are published, planned, waited for and applied by their configuration",
    { timeout: 240_000 },
    async () => {
      const here = await site();
      expect(await here.publish("billing")).toMatchObject({ code: 0 });
      const published = await here.publish("orders");
      expect(published.code).toBe(0);
      expect(published.stderr).toContain('not checked: whether dependencies lead round through "billing"');
      const configured = await here.publish("orders", "--config", "lockkeeper.yaml");
      expect(configured).toMatchObject({ code: 0, stderr: "" });

      const shown = await here.call("release", "show", "--target", "orders");
      expect(shown.stdout).toMatch(/breaking +2\nneeds +2 needs billing 2/);
      const plan = await here.call("plan", "--target", "orders");
      expect(plan.stdout).toMatch(/2_b\.up\.sql .*breaking; needs billing 2/);
      expect(await here.call("up", "--target", "orders")).toMatchObject({
        code: 20,
        stderr: expect.stringContaining("BREAKING_REFUSED"),
      });
      const early = await here.call("up", "--target", "orders", "--allow-breaking");
      expect(early.code).toBe(20);
      expect(early.stderr).toMatch(
        /"billing" at version 2, and its database \(target "money"\) is at 0.*DEPENDENCY/s,
      );

      const waiting = here.start("up", "--target", "orders", "--allow-breaking", "--dependencies", "wait");
      await expect
        .poll(() => waiting.said().stderr, { timeout: 60_000 })
        .toContain("waiting for the service billing (target money)");
      expect(await here.call("up", "--target", "money")).toMatchObject({ code: 0 });
      expect(await waiting.ended).toBe(0);
      expect(waiting.said().stdout).toContain("2 migrations done");
    },
  );

  test("that depend on each other in a circle cannot be published", { timeout: 120_000 }, async () => {
    const here = await site({
      "billing/.migration-registry.yaml":
        "service: billing\ndatabase: b\nmigrations:\n  - { version: 1, dependencies: [{ service: orders, min-version: 2 }] }\n",
    });
    expect(await here.publish("orders")).toMatchObject({ code: 0 });
    const refused = await here.publish("billing", "--registry-of", join(here.folder, "released/orders"));
    expect(refused).toMatchObject({ code: 20, stdout: "" });
    expect(refused.stderr).toContain('"billing" 1 needs "orders" 2, "orders" 2 needs "billing" 2');
  });

  test(
    "are found by their stream's name, also from plain files, and named where they are not",
    { timeout: 120_000 },
    async () => {
      const here = await site({}, "dependencies: refuse");
      const other = await createDatabase();
      const plain = [
        "up",
        "--source",
        "orders",
        "--unsigned",
        "--stream",
        "orders",
        "--database",
        other.url,
        "--allow-breaking",
      ];
      const unknown = await here.call(...plain);
      expect(unknown.code).toBe(2);
      expect(unknown.stderr).toContain(
        'a migration depends on the service "billing", and nothing says which database',
      );
      expect(unknown.stderr).toContain("--config");
      const asked = await here.call(...plain, "--config", "lockkeeper.yaml");
      expect(asked).toMatchObject({ code: 20, stderr: expect.stringContaining('(target "money") is at 0') });
      // A target of another environment is not the same database.
      const elsewhere = await here.call(...plain, "--config", "lockkeeper.yaml", "--environment", "staging");
      expect(elsewhere).toMatchObject({
        code: 2,
        stderr: expect.stringContaining("nothing says which database"),
      });
    },
  );

  test("name targets that are in the file", async () => {
    const here = await site({}, "services: { billing: mony }");
    expect(await here.call("status", "--target", "orders")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(
        'targets.orders.services.billing: "mony" is not in targets; did you mean money?',
      ),
    });
  });
});
