import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { describe, expect, test } from "vitest";

import { createApp } from "../../src/http/app.ts";
import { parsePolicy } from "../../src/http/auth/policy.ts";
import { recordsOf } from "../audit/records.ts";
import { runsOf } from "../support/runs-of.ts";
import { createIssuer, testAudience } from "../support/token.ts";
import { createWorld, orders, users, type OtherCallers, type World } from "./world.ts";

/** What the vectors are about. */
const watched = { bucket: "lockkeeper-bucket", key: "r 1+ü/head.json" } as const;
const onS3 = { ...watched, provider: "s3" } as const;
const onGcs = { ...watched, provider: "gcs" } as const;

const google = await createIssuer({ url: "https://accounts.google.com", algorithm: "RS256" });
const push = {
  sub: "107517467455664443765",
  email: "push@project.iam.gserviceaccount.com",
  email_verified: true,
};
const callers: OtherCallers = {
  issuers: {
    google: { issuer: google.url, jwksFile: "google.json", algs: ["RS256"], maxTokenAge: "60m" },
  },
  keys: { google: google.jwks },
  rules: [
    {
      id: "bucket-events",
      issuer: "google",
      match: { sub: push.sub, email: push.email, email_verified: true },
      allow: { targets: ["orders"], actions: ["wake"] },
    },
    {
      id: "elsewhere",
      issuer: "ci",
      match: { role: "elsewhere" },
      allow: { targets: ["billing"], actions: ["wake"] },
    },
    {
      id: "hourly",
      issuer: "ci",
      match: { role: "hourly" },
      allow: { targets: ["orders"], actions: ["wake"] },
      limit: { perHour: 1 },
    },
    {
      id: "hourly-elsewhere",
      issuer: "ci",
      match: { role: "hourly" },
      allow: { targets: ["billing"], actions: ["wake"] },
    },
  ],
};

interface Sent {
  readonly headers?: Readonly<Record<string, string>>;
  readonly text?: string;
}

function vector(name: string): Sent {
  const file = path.join(import.meta.dirname, `../vectors/events/${name}.json`);
  const { headers = {}, body } = JSON.parse(readFileSync(file, "utf8")) as {
    headers?: Record<string, string>;
    body?: unknown;
  };
  return { headers, ...(body === undefined ? {} : { text: JSON.stringify(body) }) };
}

/** A token as Google's Pub/Sub and Eventarc send it: without an id of its own, and for up to an hour the same one. */
function googleToken(minutesAgo = 0): Promise<string> {
  const now = new Date(Date.now() - minutesAgo * 60_000);
  return google.token(
    { ...push, aud: testAudience, jti: undefined, exp: Math.floor(now.getTime() / 1000) + 3600 },
    { now },
  );
}

function world(options: Parameters<typeof createWorld>[0] = {}): Promise<World> {
  return createWorld({ target: { watched: onGcs }, callers, ...options });
}

function results({ log }: World): readonly unknown[] {
  return log.filter(({ event }) => event === "event.received").map(({ fields }) => fields["result"]);
}

async function applied({ app, database }: World): Promise<readonly string[]> {
  await app.active.drained();
  const rows = await database.query<{ name: string }>(
    "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1",
  );
  return rows.map(({ name }) => name);
}

describe("POST /events", () => {
  test("begins the run of a release and acknowledges, and the same token may bring the next event, an hour long", async () => {
    const one = await world();
    await one.bucket.publish(users);
    const token = await googleToken(50);
    const sent = { ...vector("pubsub_push_finalize"), token };
    expect((await one.send("POST", "/events", sent)).status).toBe(204);
    expect(await applied(one)).toEqual(["users"]);
    expect((await one.send("POST", "/events", sent)).status).toBe(204);
    await one.bucket.publish({ ...users, ...orders });
    expect((await one.send("POST", "/", { ...vector("eventarc_binary"), token })).status).toBe(204);
    expect(await applied(one)).toEqual(["orders", "users"]);
    expect(results(one)).toEqual(["run", "up-to-date", "run"]);
    expect(await runsOf(one.database)).toBe(2);
    const told = (await recordsOf(one.target.driver)).map(
      ({ event, action, outcome, trigger, principal, run }) => [
        event,
        action,
        outcome,
        trigger,
        principal.subject,
        principal.rule,
        run?.startsWith("orders."),
      ],
    );
    const who = ["event", push.sub, "bucket-events", true];
    expect(told.slice(0, 3)).toEqual([
      ["decision", "wake", "allowed", ...who],
      ["run.begun", "apply", null, ...who],
      ["run.ended", "apply", "applied", ...who],
    ]);
    expect(told).toHaveLength(6);
  });

  test.for([
    ["GCS", onGcs, ["pubsub_unwrapped_finalize", "eventarc_structured"]],
    [
      "S3",
      onS3,
      [
        "s3_put_ministack",
        "sns_in_queue_localstack",
        "eventbridge_documented",
        "eventbridge_list",
        "sqs_mixed",
      ],
    ],
  ] as const)("takes each payload about %s as it comes", async ([, object, names]) => {
    const one = await createWorld({ target: { watched: object }, callers });
    const token = await googleToken();
    const files: Record<string, string> = {};
    for (const [index, name] of names.entries()) {
      files[`${index + 1}_${name}.up.sql`] = `create table ${name} (id int);`;
      await one.bucket.publish(files);
      const answer = await one.send("POST", "/events", { ...vector(name), token });
      expect([name, answer.status, answer.text]).toEqual([name, 204, ""]);
      expect(await applied(one)).toContain(name);
    }
  });

  test("wakes a production database, whose digest nobody has to name: whoever sends events chooses nothing", async () => {
    const one = await world({ environment: "production" });
    await one.bucket.publish(users);
    const sent = { ...vector("pubsub_push_finalize"), token: await googleToken() };
    expect((await one.send("POST", "/events", sent)).status).toBe(204);
    expect(await applied(one)).toEqual(["users"]);
  });

  test("acknowledges what nothing would come of, and says so in the log", async () => {
    const one = await world();
    const token = await googleToken();
    for (const [sent, result] of [
      [vector("s3_test_ministack"), "test"],
      [vector("pubsub_push_metadata_update"), "nothing"],
      [vector("s3_put_localstack"), "nobody"],
      [{ text: '{"hello":"world"}' }, "unknown"],
      [{ text: "not json" }, "unknown"],
      [{ text: `"${"x".repeat(256 * 1024)}"` }, "unknown"],
      [{}, "unknown"],
    ] as const) {
      expect((await one.send("POST", "/events", { ...sent, token })).status).toBe(204);
      expect(results(one).at(-1)).toBe(result);
    }
    expect(await runsOf(one.database)).toBe(0);
  });

  test("acknowledges the event of a release that fails, and every further one", async () => {
    const one = await world();
    await one.bucket.publish({ "1_broken.up.sql": "select 1/0;" });
    const sent = { ...vector("pubsub_push_finalize"), token: await googleToken() };
    expect((await one.send("POST", "/events", sent)).status).toBe(204);
    await one.app.active.drained();
    expect((await one.send("POST", "/events", sent)).status).toBe(204);
    expect(results(one)).toEqual(["run", "left-alone"]);
    expect(await runsOf(one.database)).toBe(1);
  });

  test("asks for another delivery while a database or bucket cannot be asked", async () => {
    const one = await world();
    await one.bucket.publish(users);
    const sent = { ...vector("pubsub_push_finalize"), token: await googleToken() };
    await one.database.drop();
    const answer = await one.send("POST", "/events", sent);
    expect([answer.status, answer.headers.get("retry-after")]).toEqual([503, "10"]);
    expect(answer.body.detail).toBe('"orders" cannot be looked at now');
    expect(results(one)).toEqual(["unreachable"]);
  });
});

describe("a sender of events", () => {
  test("has to prove who it is", async () => {
    const one = await world();
    await one.bucket.publish(users);
    const sent = vector("pubsub_push_finalize");
    const other = await createIssuer({ url: google.url, algorithm: "RS256" });
    for (const token of [
      null,
      "",
      await googleToken(62),
      await google.token({ ...push, aud: "https://elsewhere.test" }),
      await other.token({ ...push, aud: testAudience }),
    ])
      expect((await one.send("POST", "/events", { ...sent, token })).status).toBe(401);
    expect(await runsOf(one.database)).toBe(0);
  });

  test("that may wake nothing is refused, so that its own monitor shows the mistake", async () => {
    const one = await world();
    await one.bucket.publish(users);
    for (const token of [
      await one.token(),
      await one.token({ role: "viewer" }),
      await google.token({ ...push, sub: "another", aud: testAudience }),
    ]) {
      const sent = [vector("pubsub_push_finalize"), vector("s3_put_ministack"), { text: "{}" }];
      for (const each of sent) {
        const answer = await one.send("POST", "/events", { ...each, token });
        expect([answer.status, answer.body.code]).toEqual([403, "NOT_ALLOWED"]);
      }
    }
    expect(await runsOf(one.database)).toBe(0);
  });

  test("that may wake other targets learns nothing of this one, and its attempt is in the audit log", async () => {
    const one = await world();
    await one.bucket.publish(users);
    const token = await one.token({ role: "elsewhere" });
    const answers = [
      await one.send("POST", "/events", { ...vector("pubsub_push_finalize"), token }),
      await one.send("POST", "/events", { ...vector("s3_put_ministack"), token }),
    ];
    expect(answers.map(({ status, text }) => [status, text])).toEqual([
      [204, ""],
      [204, ""],
    ]);
    expect(results(one)).toEqual(["nobody", "nobody"]);
    await one.app.drained();
    expect(await runsOf(one.database)).toBe(0);
    expect(await recordsOf(one.target.driver)).toEqual([
      expect.objectContaining({ event: "decision", action: "wake", outcome: "refused", code: "NOT_ALLOWED" }),
    ]);
  });

  test("has its rule's requests an hour, and what is more comes again later", async () => {
    const one = await world();
    const send = async () =>
      one.send("POST", "/events", {
        ...vector("pubsub_push_finalize"),
        token: await one.token({ role: "hourly" }),
      });
    expect((await send()).status).toBe(204);
    const second = await send();
    expect([second.status, second.body.code]).toEqual([429, "RATE_LIMITED"]);
  });

  test("is answered when every target that it wakes has been looked at, also where one of them is too much for this hour", async () => {
    const one = await world();
    const asked = Promise.withResolvers<void>();
    const gate = Promise.withResolvers<void>();
    const head = async (signal: AbortSignal): Promise<string | undefined> => {
      asked.resolve();
      await gate.promise;
      return one.target.releases.head(signal);
    };
    const billing = { ...one.target, name: "billing", releases: { ...one.target.releases, head } };
    const app = createApp({
      ...one.deps,
      targets: new Map([
        ["orders", one.target],
        ["billing", billing],
      ]),
    });
    const send = async (): Promise<number> => {
      const { headers, text } = vector("pubsub_push_finalize");
      const authorization = `Bearer ${await one.token({ role: "hourly" })}`;
      const init = { method: "POST", headers: { ...headers, authorization }, body: text ?? "" };
      return (await app.hono.request("/events", init)).status;
    };
    const first = send();
    await asked.promise;
    const second = send();
    const known = await Promise.race([second, pause(500).then(() => "looking")]);
    gate.resolve();
    expect([known, await first, await second]).toEqual(["looking", 204, 429]);
  });

  test("of Google's needs an issuer that is believed for an hour, as the policy's reader says", () => {
    const policy = (maxTokenAge: string) =>
      JSON.stringify({
        schema: "urn:lockkeeper:policy:v1",
        audience: testAudience,
        issuers: { google: { issuer: google.url, jwksFile: "google.json", algs: ["RS256"], maxTokenAge } },
        rules: [
          { id: "r", issuer: "google", match: { sub: "1" }, allow: { targets: ["*"], actions: ["wake"] } },
        ],
      });
    expect(parsePolicy(policy("10m"), undefined).warnings).toEqual([
      expect.stringContaining('issuer "google" needs "maxTokenAge": "60m"') as string,
    ]);
    expect(parsePolicy(policy("60m"), undefined).warnings).toEqual([]);
  });
});
