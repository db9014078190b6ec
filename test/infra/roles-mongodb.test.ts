import { readFileSync } from "node:fs";
import path from "node:path";
import { runInNewContext } from "node:vm";
import { MongoClient } from "mongodb";
import { expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../src/driver/open.ts";
import { ownMongo } from "../support/mongo.ts";
import { needs } from "../support/parts.ts";
import { never } from "../support/steps.ts";

needs("secantusdb");

const script = readFileSync(
  path.join(import.meta.dirname, "..", "..", "infra", "sql", "roles-mongodb.js"),
  "utf8",
);

// SecantusDB gives rights on whole databases: that the reader sees our collections alone is not shown here.
test("MongoDB's reader may look and change nothing, its runner may change one database and no other", async () => {
  const { url } = await ownMongo({ user: { name: "admin", password: "secret" } });
  const admin = new MongoClient(url);
  onTestFinished(() => admin.close());
  const orders = admin.db("orders");
  // what mongosh's createRole sends; mongosh itself is not here
  const commands: object[] = [];
  const createRole = ({ role, ...rest }: { readonly role: string }): number =>
    commands.push({ createRole: role, ...rest });
  runInNewContext(script, { database: "orders", db: { getSiblingDB: () => ({ createRole }) } });
  for (const command of commands) await orders.command(command);
  for (const role of ["lockkeeperRunner", "lockkeeperReader"])
    await orders.command({ createUser: role, pwd: "secret", roles: [role] });
  const as = (user: string): string => {
    const other = new URL(url);
    other.username = user;
    other.pathname = "/orders";
    other.searchParams.set("authSource", "orders");
    return other.href;
  };
  await orders.collection("customers").insertOne({ name: "Ada" });

  const reader = await openDriver(as("lockkeeperReader"));
  onTestFinished(() => reader.close());
  expect(await reader.state("orders", never)).toMatchObject({ exists: false });
  expect(await reader.history("orders", {}, never)).toEqual([]);

  const client = new MongoClient(as("lockkeeperReader"));
  onTestFinished(() => client.close());
  const db = client.db("orders");
  await expect(db.collection("lockkeeper.streams").insertOne({ x: 1 })).rejects.toMatchObject({ code: 13 });

  const runner = new MongoClient(as("lockkeeperRunner"));
  onTestFinished(() => runner.close());
  await runner.db("orders").collection("customers").createIndex({ name: 1 });
  await expect(runner.db("billing").collection("x").insertOne({ x: 1 })).rejects.toMatchObject({ code: 13 });
});
