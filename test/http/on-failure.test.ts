import { describe, expect, test } from "vitest";
import { commandBackup } from "../../src/hook/command.ts";
import { createWorld, orders, users } from "./world.ts";

const broken = { "3_broken.up.sql": "select 1 / 0;", "3_broken.down.sql": "select 1;" };
const ask = { target: "orders", action: "apply" } as const;

describe("onFailure of a request", () => {
  test("rolls the run back, and the run tells it", async () => {
    const world = await createWorld();
    const digest = await world.bucket.publish({ ...users, ...orders, ...broken });
    const { status, body } = await world.send("POST", "/v1/runs", {
      body: { ...ask, release: { digest }, onFailure: "rollback" },
    });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      status: "failed",
      outcome: "rolled_back",
      progress: {
        applied: 0,
        total: 3,
        message: expect.stringMatching(/^failed and rolled back: /) as string,
      },
      error: { code: "MIGRATION_FAILED", fields: { rollback: "done", takenBack: 2 } },
      backup: null,
    });
    const gate = await world.send("GET", `/v1/runs/${body.id}/gate`);
    expect(gate).toMatchObject({ status: 409, body: { code: "MIGRATION_FAILED" } });
    expect((await world.send("GET", "/v1/targets/orders")).body).toMatchObject({
      position: { version: null },
      held: { run: body.id },
    });
    expect(await world.database.query("select to_regclass('users') as there")).toEqual([{ there: null }]);
  });

  test("takes the right to roll back, unless the target does so anyway", async () => {
    for (const target of [{}, { onFailure: "rollback" }] as const) {
      const world = await createWorld({ target });
      const digest = await world.bucket.publish({ ...users, ...broken });
      const send = async (onFailure: string) =>
        world.send("POST", "/v1/runs", {
          token: await world.token({ role: "deployer" }),
          body: { ...ask, release: { digest }, onFailure },
        });
      const asked = await send("rollback");
      if ("onFailure" in target) expect(asked.body).toMatchObject({ outcome: "rolled_back" });
      else expect(asked).toMatchObject({ status: 403, body: { code: "NOT_ALLOWED" } });
      expect((await send("keep")).body).toMatchObject({ outcome: "failed", progress: { applied: 1 } });
    }
  });

  test("is refused with another action, and so is anything that names a command or an address", async () => {
    const world = await createWorld();
    await world.bucket.publish(users);
    for (const more of [
      { action: "rollback", to: "0", onFailure: "rollback" },
      { action: "plan", onFailure: "keep" },
      { onFailure: "panic" },
      { backup: { command: ["id"] } },
      { backupCommand: "id" },
      { backupUrl: "http://169.254.169.254/" },
      { backup: null },
    ]) {
      expect(await world.send("POST", "/v1/runs", { body: { ...ask, ...more } })).toMatchObject({
        status: 400,
        body: { code: "INVALID_REQUEST" },
      });
    }
  });
});

describe("a configured backup", () => {
  test("is made by the server and shown with the run; its output is in the log only", async () => {
    const script = "console.log('dump of ' + process.env.LOCKKEEPER_RUN_TARGET)";
    const backup = commandBackup([process.execPath, "-e", script], { timeoutMs: 60_000, variables: {} });
    const world = await createWorld({ target: { backup } });
    await world.bucket.publish(users);
    const { body, text } = await world.send("POST", "/v1/runs", { body: ask });
    expect(body).toMatchObject({ outcome: "applied", backup: { by: "command node", result: "done" } });
    expect(text).not.toContain("dump of");
    expect(world.log).toContainEqual({
      level: "info",
      event: "backup.output",
      fields: { line: "dump of orders", run: body.id, target: "orders" },
    });
  });

  test("that fails refuses the run, which may be asked for again", async () => {
    const backup = commandBackup([process.execPath, "-e", "process.exit(1)"], {
      timeoutMs: 60_000,
      variables: {},
    });
    const world = await createWorld({ target: { backup } });
    await world.bucket.publish(users);
    const { status, body } = await world.send("POST", "/v1/runs", { body: ask });
    expect(status).toBe(409);
    expect(body).toMatchObject({ code: "BACKUP_FAILED", retryable: true });
    expect((await world.send("GET", `/v1/runs/${body.run}`)).body).toMatchObject({
      outcome: "refused",
      backup: { result: "failed" },
      progress: { applied: 0 },
    });
  });
});
