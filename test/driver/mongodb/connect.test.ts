import { createServer, type AddressInfo } from "node:net";
import { BSON, type Document } from "mongodb";
import { describe, expect, onTestFinished, test } from "vitest";
import type { Driver } from "../../../src/driver/driver.ts";
import { openMongo } from "../../../src/driver/mongodb/mongodb.ts";
import { portOf, startMongoProxy, throughProxy } from "../../support/mongo-proxy.ts";
import { createMongoDatabase, ownMongo } from "../../support/mongo.ts";
import { needs } from "../../support/parts.ts";
import { leaseOptions, never } from "../../support/steps.ts";

function open(url: string): Driver {
  const driver = openMongo(url);
  onTestFinished(() => driver.close());
  return driver;
}

/** What asking for the state, and taking the lease, are answered with. */
async function refusals(url: string): Promise<readonly unknown[]> {
  const driver = open(url);
  const failures = [
    await driver.state("orders", never).catch((error: unknown) => error),
    await driver.withLease(leaseOptions(), () => Promise.resolve("taken")).catch((error: unknown) => error),
  ];
  const said = failures.map((failure) =>
    failure instanceof Error
      ? [failure.message, Reflect.get(failure, "hint"), Reflect.get(failure, "fields")]
      : failure,
  );
  expect(JSON.stringify(said)).not.toContain("s3cret");
  return failures;
}

/** With a patience that a test can wait for, where nobody will ever answer. */
function impatient(url: string): string {
  return `${url}${url.includes("?") ? "&" : "?"}serverSelectionTimeoutMS=500`;
}

describe("a MongoDB server that can be used", () => {
  needs("mongodb");

  test("is asked one thing for a stream's state, and its clock is known all the same", async () => {
    const database = await createMongoDatabase();
    const asked: string[] = [];
    await using proxy = await startMongoProxy(portOf(database.url), (command) => {
      // The driver's own watching comes without a session.
      if ("lsid" in command) asked.push(Object.keys(command)[0] ?? "");
      return "pass";
    });
    const driver = open(throughProxy(database.url, proxy));
    const [{ localTime }, { now }] = await Promise.all([
      database.db.command({ hello: 1 }),
      driver.state("orders", never),
    ]);
    expect(asked).toEqual(["aggregate"]);
    expect(Math.abs(now.getTime() - (localTime as Date).getTime())).toBeLessThan(60_000);
  });
});

describe("a MongoDB server that cannot be used", () => {
  test("because nothing listens there, or its name is unknown, is named by code", async () => {
    for (const [host, message, scheme = "mongodb"] of [
      ["127.0.0.1:1", "nothing listens"],
      ["nowhere.invalid", "host name"],
      ["nowhere.invalid", "host name", "mongodb+srv"],
    ]) {
      const failures = await refusals(impatient(`${scheme}://u:s3cret@${host}/d`));
      const unavailable = {
        code: "DATABASE_UNAVAILABLE",
        message: expect.stringContaining(`${message}`) as string,
      };
      expect(failures).toMatchObject([unavailable, unavailable]);
    }
  });

  test("because it does not answer is given up in time", async () => {
    const silent = createServer(() => undefined);
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void silent.close());
    const { port } = silent.address() as AddressInfo;
    const url = impatient(`mongodb://u:s3cret@127.0.0.1:${port}/d`);
    expect(await refusals(url)).toMatchObject([
      { code: "DATABASE_UNAVAILABLE" },
      { code: "DATABASE_UNAVAILABLE" },
    ]);
  });

  test("because it is too old says which it is and what is needed", async () => {
    const url = impatient(await startGreeter({ maxWireVersion: 8, isWritablePrimary: true }));
    const unsupported = {
      code: "DATABASE_UNSUPPORTED",
      message: expect.stringContaining("wire version 8") as string,
      hint: expect.stringContaining("4.4") as string,
    };
    expect(await refusals(url)).toMatchObject([unsupported, unsupported]);
  });

  test("because it is a secondary takes no lease", async () => {
    const hello = {
      maxWireVersion: 21,
      isWritablePrimary: false,
      secondary: true,
      setName: "rs0",
      hosts: ["h:1"],
    };
    const driver = open(`${impatient(await startGreeter(hello))}&directConnection=true`);
    const work = driver.withLease(leaseOptions(), () => Promise.resolve());
    await expect(work).rejects.toMatchObject({ code: "DATABASE_READ_ONLY" });
  });

  test("because of a parameter that no MongoDB driver knows is a fault of the URL", () => {
    expect(() => openMongo("mongodb://u:s3cret@h/d?nonsense=1")).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.not.stringContaining("s3cret") as string }),
    );
  });

  describe("as SecantusDB is", () => {
    needs("secantusdb");

    test("because of its certificate, for want of TLS, or because of a password is named by code", async () => {
      const server = await ownMongo({ tls: true, user: { name: "anna", password: "p@ss/word" } });
      const { url } = await createMongoDatabase({ server });
      const driver = open(url);
      expect(driver.url).toMatch(/^mongodb:\/\/anna@127\.0\.0\.1:\d+\/test_[0-9a-f]+$/);
      expect(await driver.withLease(leaseOptions(), ({ token }) => Promise.resolve(token))).toBe(1);

      const wrong = url.replace("p%40ss%2Fword", "s3cret");
      const denied = { code: "DATABASE_DENIED", hint: expect.stringContaining("authSource") as string };
      expect(await refusals(wrong)).toMatchObject([denied, denied]);
      expect(await refusals(url.replace(/anna.*@/, ""))).toMatchObject([
        { code: "DATABASE_DENIED" },
        { code: "DATABASE_DENIED" },
      ]);
      const withoutAuthority = wrong.replace(/&tlsCAFile=[^&]*/, "");
      expect(await refusals(impatient(withoutAuthority))).toMatchObject([
        { code: "DATABASE_TLS" },
        { code: "DATABASE_TLS" },
      ]);
      expect(await refusals(impatient(withoutAuthority.replace("tls=true", "tls=false")))).toMatchObject([
        { code: "DATABASE_UNAVAILABLE" },
        { code: "DATABASE_UNAVAILABLE" },
      ]);
      expect(await refusals(url.replace(/tlsCAFile=[^&]*/, "tlsCAFile=/nowhere.pem"))).toMatchObject([
        { code: "CONFIG" },
        { code: "CONFIG" },
      ]);
    });
  });
});

/** A server that knows nothing but how to say what it is: to a driver's first word (OP_QUERY) and to a later one (OP_MSG). */
async function startGreeter(hello: Document): Promise<string> {
  const answer = BSON.serialize({
    ...hello,
    ok: 1,
    minWireVersion: 0,
    localTime: new Date(),
    maxBsonObjectSize: 16_777_216,
    maxMessageSizeBytes: 48_000_000,
    maxWriteBatchSize: 100_000,
  });
  const server = createServer((socket) => {
    let received = Buffer.alloc(0);
    socket.on("error", () => undefined);
    socket.on("data", (bytes) => {
      received = Buffer.concat([received, bytes]);
      while (received.length >= 16 && received.length >= received.readInt32LE(0)) {
        const length = received.readInt32LE(0);
        const isMessage = received.readInt32LE(12) === 2_013;
        socket.write(reply(received.readInt32LE(4), isMessage, answer));
        received = received.subarray(length);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void server.close());
  return `mongodb://127.0.0.1:${(server.address() as AddressInfo).port}/d`;
}

/** OP_MSG with one document, or the OP_REPLY of old. */
function reply(to: number, isMessage: boolean, document: Uint8Array): Buffer {
  const before = Buffer.alloc(isMessage ? 5 : 20);
  if (!isMessage) before.writeInt32LE(1, 16);
  const header = Buffer.alloc(16);
  header.writeInt32LE(16 + before.length + document.length, 0);
  header.writeInt32LE(to, 8);
  header.writeInt32LE(isMessage ? 2_013 : 1, 12);
  return Buffer.concat([header, before, document]);
}
