import { expect, test } from "vitest";
import { verifyAudit } from "../../src/audit/verify.ts";
import { recordsOf, story } from "../audit/records.ts";
import { never } from "../support/steps.ts";
import { createWorld, users } from "./world.ts";

const apply = { target: "orders", action: "apply" } as const;
const wait = { prefer: "wait=50" } as const;

test("a run that finds nothing to do has ended with its answer, has both its records, and shows where the database is", async () => {
  const world = await createWorld();
  const digest = await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: wait });
  const before = (await recordsOf(world.target.driver)).length;
  const token = await world.token();
  const labels = { job: "17" };
  const answer = await world.send("POST", "/v1/runs", {
    token,
    body: { ...apply, labels },
    headers: { prefer: "respond-async" },
  });
  expect([answer.status, answer.body]).toMatchObject([
    200,
    {
      status: "succeeded",
      outcome: "noop",
      release: { digest },
      from: "1",
      to: "1",
      attempt: 0,
      labels,
      trigger: { kind: "http" },
    },
  ]);
  const { id } = answer.body as { id: string };
  const records = (await recordsOf(world.target.driver)).slice(before);
  expect(story(records)).toEqual(["decision allowed", "run.ended noop"]);
  expect(
    records.map(({ run, offered, from, to, requested }) => ({
      run,
      offered,
      from,
      to,
      goal: requested.goal,
    })),
  ).toEqual([
    { run: id, offered: null, from: null, to: null, goal: "latest" },
    { run: id, offered: digest, from: "1", to: "1", goal: "latest" },
  ]);
  expect((await world.send("GET", `/v1/runs/${id}`)).body).toEqual(answer.body);
  const of = world.log.filter(({ fields }) => fields["run"] === id || fields["event"] === "audit");
  expect(of.map(({ event }) => event)).toEqual(
    expect.arrayContaining(["run.started", "run.done", "http.request"]),
  );

  // its token is used up, for this and nothing else
  const again = await world.send("POST", "/v1/runs", { token, body: { ...apply, labels }, headers: wait });
  expect((again.body as { id: string }).id).toBe(id);
  const other = await world.send("POST", "/v1/runs", { token, body: apply, headers: wait });
  expect(other.body).toMatchObject({ status: 409, code: "REPLAY" });
});

test("of many requests at once, at two servers, each has a run and its records, and the chain of the audit log holds", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: wait });
  const before = (await recordsOf(world.target.driver)).length;
  const servers = [world, await world.replica()];
  const answers = await Promise.all(
    Array.from({ length: 14 }, (_, index) =>
      (servers[index % 2] ?? world).send("POST", "/v1/runs", { body: apply, headers: wait }),
    ),
  );
  expect(answers.map(({ status, body }) => [status, (body as { outcome: string }).outcome])).toEqual(
    answers.map(() => [200, "noop"]),
  );
  const ids = answers.map(({ body }) => (body as { id: string }).id);
  expect(new Set(ids).size).toBe(14);
  const records = (await recordsOf(world.target.driver)).slice(before);
  for (const id of ids)
    expect(story(records.filter(({ run }) => run === id))).toEqual(["decision allowed", "run.ended noop"]);
  expect(records).toHaveLength(28);
  expect(await verifyAudit(world.target.driver.audit, new Map(), never)).toMatchObject({
    entries: before + 28,
  });
});

test("where its records cannot be written, there is no run without anything to do", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: wait });
  const before = await recordsOf(world.target.driver);
  await world.database.query(
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no'; END$$",
  );
  await world.database.query(
    "CREATE TRIGGER refuse BEFORE INSERT ON lockkeeper.audit FOR EACH ROW EXECUTE FUNCTION refuse()",
  );
  const answer = await world.send("POST", "/v1/runs", { body: apply, headers: wait });
  expect(answer.body).toMatchObject({ status: 503, code: "AUDIT_UNAVAILABLE" });
  await world.app.drained();
  expect(await recordsOf(world.target.driver)).toEqual(before);
  const ended = await world.target.driver.runs({ target: "orders", limit: 10 }, never);
  expect(ended.filter(({ outcome }) => outcome === "noop")).toEqual([]);
});

test("a publisher who asks at once after publishing never hears that there is nothing to do", async () => {
  const world = await createWorld();
  await world.bucket.publish(users);
  await world.send("POST", "/v1/runs", { body: apply, headers: wait });
  const ask = () => world.send("POST", "/v1/runs", { body: apply, headers: wait });
  // Looks are under way all the time, and one that was begun before must not be this one's answer.
  const others = Array.from({ length: 5 }, ask);
  await world.bucket.publish({ ...users, "2_more.up.sql": "create table more (id int);" });
  const answer = await ask();
  expect(answer.body).toMatchObject({ status: "succeeded", to: "2" });
  await Promise.all(others);
});
