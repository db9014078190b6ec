import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { beforeAll, describe, expect, test } from "vitest";
import { needs } from "../support/parts.ts";
import { createIssuer } from "../support/token.ts";
import { migrations, openSite, start, startBuckets, type Cost, type Site } from "./site.ts";

needs("versitygw");

/**
 * Round trips of a run with nothing to do: where the database is; then, in one transaction, the token is used up, and the
 * run and its two records of the audit log are written.
 */
const idleRoundTrips = 2;
/** Of a status: the head and the release's signatures; where the database is, and its newest run. */
const statusCost = { requests: 2, roundTrips: 2 };

/** To the database, of which half are the two records: the statements themselves would be 5,500 more. */
const idleBytesUp = 4_000;

/** Asks the server. */
type Ask = (method: string, path: string, body?: object) => Promise<unknown>;

/** The target `orders` of a server in a process of its own, until the file's end. */
async function serve(site: Site): Promise<Ask> {
  const issuer = await createIssuer();
  const files = {
    "jwks.json": issuer.jwks,
    "policy.json": issuer.policy("orders"),
    "db-url": site.variables["DATABASE_URL"] ?? "",
    "lockkeeper.yaml": `version: 1
policy: policy.json
trust: { team: { keys: [key.pub] } }
targets:
  orders: { engine: postgres, stream: orders, source: "${site.url}", trust: team, database: { urlFile: db-url } }
`,
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(site.folder, name), text);
  const argv = ["serve", "--config", join(site.folder, "lockkeeper.yaml"), "--listen", "127.0.0.1:0"];
  const child = await start(argv, site.variables);
  let wrong = "";
  child.stderr.on("data", (piece: Buffer) => (wrong += piece.toString()));
  const url = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const said = JSON.parse(line) as Readonly<Record<string, unknown>>;
      if (said["event"] === "server.started") resolve(String(said["url"]));
    });
    child.once("close", (code) => reject(new Error(`the server ended with ${code}: ${wrong}`)));
  });
  return async (method, path, body) => {
    const headers = {
      authorization: `Bearer ${await issuer.token({ sub: "ci" })}`,
      "content-type": "application/json",
    };
    const answer = await fetch(url + path, {
      method,
      headers,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await answer.text();
    expect([answer.status, text]).toEqual([200, expect.any(String)]);
    return JSON.parse(text);
  };
}

/** Equal questions after which a server is warm: it has its connections, all code that it needs, and its statements prepared. */
const warmUp = 40;

/** What a question costs a warm server. */
interface Warm {
  readonly idle: Cost;
  readonly status: Cost;
}

let few: Warm;
let many: Warm;
beforeAll(async () => {
  const site = await openSite(await startBuckets("S3"));
  const ask = await serve(site);
  const apply = (): Promise<unknown> => ask("POST", "/v1/runs", { target: "orders", action: "apply" });
  const status = (): Promise<unknown> => ask("GET", "/v1/targets/orders");
  const warm = async (count: number): Promise<Warm> => {
    await site.publish(migrations(count));
    expect(await apply()).toMatchObject({ outcome: "applied" });
    const idle = await repeated(apply);
    return { idle, status: await repeated(status) };
  };
  const repeated = async (act: () => Promise<unknown>): Promise<Cost> => {
    for (let asked = 0; asked < warmUp; asked += 1) await act();
    return site.counted(act);
  };
  few = await warm(10);
  many = await warm(200);
});

describe("a server that has answered before", () => {
  test("asks the bucket once whether it has something newer, and the database twice, for a run with nothing to do", () => {
    for (const { idle } of [few, many]) {
      expect(idle.said).toMatchObject({ outcome: "noop" });
      expect(idle.bucket.asked).toEqual([expect.stringMatching(/^GET \S*head\.json/)]);
      expect(idle.database.asked.length).toBeLessThanOrEqual(idleRoundTrips);
    }
  });

  test("takes as many bytes from the bucket and the database, for either, whether there are 10 migrations or 200", () => {
    for (const of of ["idle", "status"] as const)
      for (const at of ["bucket", "database"] as const)
        expect(Math.abs(many[of][at].bytesDown - few[of][at].bytesDown)).toBeLessThanOrEqual(256);
    // It has not changed, and that is all that the bucket says.
    expect(many.idle.bucket.bytesDown).toBeLessThanOrEqual(512);
  });

  test("has the database plan nothing again that it is asked for each time", () => {
    for (const { idle, status } of [few, many]) {
      expect(idle.database.asked).toEqual([
        expect.stringMatching(/^EXECUTE lockkeeper_state/),
        expect.stringMatching(/^BEGIN/),
      ]);
      expect(idle.database.bytesUp).toBeLessThanOrEqual(idleBytesUp);
      expect([...status.database.asked].toSorted()).toEqual([
        expect.stringMatching(/^EXECUTE lockkeeper_newest_run/),
        expect.stringMatching(/^EXECUTE lockkeeper_state/),
      ]);
    }
  });

  test("connects to neither for a run with nothing to do, nor for a status", () => {
    for (const cost of [few.idle, few.status, many.idle, many.status])
      expect([cost.bucket.connections, cost.database.connections]).toEqual([0, 0]);
  });

  test("says what a target's status is by as many requests and round trips with 200 migrations as with 10", () => {
    for (const { status } of [few, many]) {
      expect(status.said).toMatchObject({ name: "orders" });
      expect(status.bucket.exchanges).toBeLessThanOrEqual(statusCost.requests);
      expect(status.database.asked.length).toBeLessThanOrEqual(statusCost.roundTrips);
    }
  });
});
