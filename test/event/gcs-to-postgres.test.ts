import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as pause } from "node:timers/promises";

import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";

import { listen } from "../../src/bin/listen.ts";
import { openDriver } from "../../src/driver/open.ts";
import { signedReleases } from "../../src/release/signed.ts";
import type { Target } from "../../src/runner.ts";
import { openSource } from "../../src/source/open.ts";
import { createWorld } from "../http/world.ts";
import { startGcs, type BucketServer } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";
import { startPubsub, type Pubsub } from "../support/pubsub.ts";
import { makeKeys, publishTo } from "../support/release.ts";
import { never } from "../support/steps.ts";

needs("fake-gcs-server", "pubsub-emulator", "java");

let pubsub: Pubsub;
let gcs: BucketServer;
beforeAll(async () => {
  pubsub = await startPubsub();
  gcs = await startGcs(pubsub.host);
}, 120_000);
afterAll(async () => {
  await gcs.stop();
  await pubsub.stop();
});

const uploads = 20;

/**
 * What Google's push endpoint does and its emulator does not: adds the token of the subscription's service account. And
 * what any network may do: every third delivery comes twice, and in another order.
 *
 * @returns its address, and the answers so far
 */
async function startForwarder(
  to: string,
  token: () => Promise<string>,
): Promise<{ url: string; answers: number[] }> {
  const answers: number[] = [];
  let count = 0;
  const deliver = async (body: string, type: string): Promise<number> => {
    const headers = { "content-type": type, authorization: `Bearer ${await token()}` };
    const { status } = await fetch(to, { method: "POST", headers, body });
    answers.push(status);
    return status;
  };
  const server = createServer((request, response) => {
    void (async () => {
      const body = await textOf(request);
      const type = request.headers["content-type"] ?? "";
      count += 1;
      const isOdd = count % 3 === 0;
      if (isOdd) await pause(200);
      const [status] = await Promise.all([deliver(body, type), ...(isOdd ? [deliver(body, type)] : [])]);
      response.writeHead(status).end();
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}/push`, answers };
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = "";
  request.setEncoding("utf8");
  for await (const piece of request) text += String(piece);
  return text;
}

test(
  "of twenty releases put into a bucket of GCS, Pub/Sub's pushes have each one run at the most, and all are applied",
  { timeout: 300_000 },
  async () => {
    const world = await createWorld({
      callers: {
        rules: [
          {
            id: "push",
            issuer: "ci",
            match: { sub: "push" },
            allow: { targets: ["orders"], actions: ["wake"] },
          },
        ],
      },
    });
    const bucket = await gcs.createBucket({ versioning: true });
    const name = bucket.replace("gs://", "");
    const source = await openSource(`${bucket}/orders`, gcs.options);
    const { key, trust } = makeKeys();
    const driver = await openDriver(world.database.url);
    onTestFinished(() => driver.close());
    const target: Target = {
      ...world.target,
      driver,
      releases: signedReleases({
        source,
        stream: "orders",
        environment: "default",
        engine: "postgres",
        trust,
      }),
      watched: { provider: "gcs", bucket: name, key: "orders/head.json" },
    };
    const stopping = new AbortController();
    const server = await listen(
      {
        ...world.deps,
        targets: new Map([["orders", target]]),
        publicUrl: undefined,
        signal: stopping.signal,
      },
      { host: "127.0.0.1", port: 0 },
    );
    onTestFinished(async () => {
      stopping.abort();
      await server.stopped;
    });
    const forwarder = await startForwarder(`${server.url}/events`, () => world.issuer.token({ sub: "push" }));
    await pubsub.createPush("releases", forwarder.url);
    await notify(name, "orders/head.json");

    const files: Record<string, string> = {};
    let newest = "";
    for (let count = 1; count <= uploads; count++) {
      files[`${count}_t${count}.up.sql`] = `create table t${count} (id int);`;
      newest = (await publishTo(source, files, { keys: [key] })).digest;
    }
    while ((await driver.state("orders", never)).completed !== newest || forwarder.answers.length < uploads)
      await pause(50);
    // A run of an earlier release may still have to find out that there is nothing to do.
    while (
      (await driver.runs({ target: "orders", limit: 100 }, never)).some(({ endedAt }) => endedAt === null)
    )
      await pause(50);
    const runs = await world.database.query<{ key: string; status: string; trigger: string }>(
      "select idempotency_key as key, status, trigger from lockkeeper.runs",
    );
    expect(new Set(runs.map(({ status, trigger }) => `${trigger} ${status}`))).toEqual(
      new Set(["event succeeded"]),
    );
    expect(new Set(runs.map((run) => run.key)).size).toBe(runs.length);
    expect(runs.length).toBeLessThanOrEqual(uploads);
    const [tables] = await world.database.query<{ n: number }>(
      "select count(*)::int as n from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
    );
    expect(tables).toEqual({ n: uploads });
    expect(new Set(forwarder.answers)).toEqual(new Set([204]));
  },
);

/** A notification of a bucket, as `gcloud storage buckets notifications create --object-prefix` makes it. */
async function notify(bucket: string, prefix: string): Promise<void> {
  const answer = await fetch(`${gcs.endpoint}/storage/v1/b/${bucket}/notificationConfigs`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      topic: "//pubsub.googleapis.com/projects/test/topics/releases",
      payload_format: "JSON_API_V1",
      event_types: ["OBJECT_FINALIZE"],
      object_name_prefix: prefix,
    }),
  });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  await answer.arrayBuffer();
}
