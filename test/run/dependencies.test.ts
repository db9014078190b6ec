import { describe, expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../src/driver/open.ts";
import { RunnerError } from "../../src/error.ts";
import type { RunTrigger } from "../../src/history/run.ts";
import type { Registry } from "../../src/release/registry.ts";
import type { ServiceDatabase } from "../../src/run/target.ts";
import { planRun, run, type RunRequest, type Target } from "../../src/runner.ts";
import { createDatabase } from "../support/database.ts";
import { never } from "../support/steps.ts";
import { openTarget, type PlainTarget, requestOf, tableMigrations } from "../support/target.ts";

/** Migration 2 of `orders` needs version 2 of `billing`, and 3 breaks something. */
const registry: Registry = {
  service: "orders",
  database: "orders",
  migrations: [
    { version: "2", breaking: false, dependencies: [{ service: "billing", minVersion: "2" }] },
    { version: "3", breaking: true, description: "the old column is gone", dependencies: [] },
  ],
};

interface World {
  /** the target that depends on the other one */
  readonly orders: PlainTarget;
  readonly billing: PlainTarget;
  /** connections to the other service's database that are open now */
  open(): number;
  run(change?: Partial<RunRequest>, target?: Partial<Target>, signal?: AbortSignal): ReturnType<typeof run>;
}

/** Two targets on two databases; `billing` has three migrations to go. */
async function world(): Promise<World> {
  const [own, other] = await Promise.all([createDatabase(), createDatabase()]);
  const orders = await openTarget(own.url, tableMigrations(3));
  const billing = await openTarget(other.url, tableMigrations(3));
  const { current } = orders.releases;
  orders.releases.current = { ...current, release: { ...current.release, registry } };
  let open = 0;
  const openService = async (service: string): Promise<ServiceDatabase> => {
    expect(service).toBe("billing");
    const driver = await openDriver(other.url);
    open += 1;
    const dispose = async (): Promise<void> => {
      open -= 1;
      await driver.close();
    };
    return { target: "billing-test", stream: billing.stream, driver, [Symbol.asyncDispose]: dispose };
  };
  return {
    orders,
    billing,
    open: () => open,
    run: (change = {}, target = {}, signal = never) =>
      run(
        requestOf(orders, { allow: ["breaking"], ...change }),
        { ...orders, openService, ...target },
        { signal, emit: (event) => orders.events.push(event), now: () => new Date() },
      ),
  };
}

const upBy = (count: number) => ({ goal: { kind: "steps", direction: "up", count } }) as const;

async function versionOf({ driver, stream }: PlainTarget): Promise<string | null> {
  return (await driver.state(stream, never)).position.version;
}

describe("a migration that depends on another service", () => {
  test("is refused before the lease is taken while that is not at its version, with what to do", async () => {
    const here = await world();
    await here.billing.run(upBy(1));
    const refused = await here.run();
    expect(refused).toMatchObject({
      status: "failed",
      outcome: "refused",
      done: [],
      error: {
        code: "DEPENDENCY",
        retryable: true,
        message: expect.stringContaining('needs the service "billing" at version 2') as string,
        hint: expect.stringMatching(/--dependencies wait, .*goto 1$/) as string,
        fields: { migration: "2_t2.up.sql", target: "billing-test", expected: "2", actual: "1" },
      },
    });
    expect(here.orders.events.map(({ kind }) => kind)).not.toContain("lease.acquired");
    expect((await here.orders.driver.state(here.orders.stream, never)).exists).toBe(false);
    expect(here.open()).toBe(0);
    // What does not depend on it may go on.
    expect(await here.run(upBy(1))).toMatchObject({ status: "succeeded", to: { version: "1" } });
    await here.billing.run(upBy(1));
    expect(await here.run()).toMatchObject({ status: "succeeded", to: { version: "3" } });
    expect(here.open()).toBe(0);
  });

  test("is not asked for where nothing is pending that depends on it", async () => {
    const here = await world();
    await here.billing.run();
    await here.run();
    const openService = (): never => {
      throw new Error("nobody was to be asked");
    };
    expect(await here.run({}, { openService })).toMatchObject({ outcome: "noop" });
    expect(
      await here.run(
        { goal: { kind: "steps", direction: "down", count: 2 }, action: "rollback" },
        { openService },
      ),
    ).toMatchObject({
      outcome: "rolled_back",
      error: null,
    });
  });

  test(
    "waits with --dependencies wait until that is at its version, and says so",
    { timeout: 60_000 },
    async () => {
      const here = await world();
      const running = here.run({}, { dependencies: "wait" });
      const told = () => here.orders.events.filter(({ kind }) => kind === "dependency.waiting");
      await expect.poll(() => told().length, { timeout: 30_000 }).toBeGreaterThan(0);
      expect(told()[0]).toEqual({
        kind: "dependency.waiting",
        path: "2_t2.up.sql",
        service: "billing",
        target: "billing-test",
        minVersion: "2",
        version: null,
        problem: null,
      });
      expect(await versionOf(here.orders)).toBeNull();
      await here.billing.run();
      expect(await running).toMatchObject({ status: "succeeded", to: { version: "3" } });
      expect(here.open()).toBe(0);
    },
  );

  test(
    "gives up after the wait limit, and at once when the run is to stop",
    { timeout: 60_000 },
    async () => {
      const here = await world();
      const dependencies = "wait";
      const limits = { ...here.orders.limits, waitMs: 1_500 };
      expect(await here.run({ limits }, { dependencies })).toMatchObject({
        error: { code: "DEPENDENCY", hint: expect.stringContaining("wait longer (--wait)") as string },
      });
      const stop = new AbortController();
      here.orders.events.length = 0;
      const running = here.run({}, { dependencies }, stop.signal);
      await expect
        .poll(() => here.orders.events.some(({ kind }) => kind === "dependency.waiting"), { timeout: 30_000 })
        .toBe(true);
      stop.abort(new RunnerError("CANCELED", "enough"));
      expect(await running).toMatchObject({ status: "canceled", error: { code: "CANCELED" } });
      expect(here.open()).toBe(0);
    },
  );

  test("counts the highest version that was applied, wherever it stands in the sequence", async () => {
    const here = await world();
    const [first, second, third] = tableMigrations(3);
    if (first === undefined || second === undefined || third === undefined) throw new Error("no migrations");
    await here.billing.publish([first, third, second]);
    await here.billing.run();
    expect(await versionOf(here.billing)).toBe("2");
    const needs = [{ service: "billing", minVersion: "3" }];
    const { current } = here.orders.releases;
    const more = { ...registry, migrations: [{ version: "1", breaking: false, dependencies: needs }] };
    here.orders.releases.current = { ...current, release: { ...current.release, registry: more } };
    expect(await here.run()).toMatchObject({ status: "succeeded" });
  });

  test("is looked at again under the lease", async () => {
    const here = await world();
    await here.billing.run();
    let asked = 0;
    const openService = async (): Promise<ServiceDatabase> => {
      asked += 1;
      // Between the two looks somebody takes the other service back.
      if (asked === 2)
        await here.billing.run({ goal: { kind: "steps", direction: "down", count: 2 }, action: "rollback" });
      const { driver, stream } = here.billing;
      return { target: "billing-test", stream, driver, [Symbol.asyncDispose]: async () => undefined };
    };
    expect(await here.run({}, { openService, dependencies: "wait" })).toMatchObject({
      outcome: "refused",
      error: { code: "DEPENDENCY", fields: { actual: "1" } },
    });
    expect(asked).toBe(2);
    expect(await versionOf(here.orders)).toBeNull();
    expect((await here.orders.driver.state(here.orders.stream, never)).lease).toBeNull();
  });

  test("cannot run where nobody said which database is the service's", async () => {
    const here = await world();
    const refused = await here.orders.run({ allow: ["breaking"] });
    expect(refused).toMatchObject({
      error: { code: "CONFIG", hint: expect.stringContaining("services: { billing: <target> }") as string },
    });
  });

  test("tells which service it is whose database cannot be asked", { timeout: 60_000 }, async () => {
    const here = await world();
    const driver = await openDriver("postgres://nobody:secret@127.0.0.1:1/none");
    onTestFinished(() => driver.close());
    const openService = async (): Promise<ServiceDatabase> => ({
      target: "billing-test",
      stream: "orders",
      driver,
      [Symbol.asyncDispose]: async () => undefined,
    });
    const refused = await here.run({}, { openService });
    expect(refused).toMatchObject({
      error: {
        code: "DATABASE_UNAVAILABLE",
        message: expect.stringContaining(
          'the service "billing" (target "billing-test") cannot be asked',
        ) as string,
      },
    });
    expect(JSON.stringify(refused.error)).not.toContain("secret");
  });
});

describe("a migration that breaks something", () => {
  test("is refused unless the request allows it, and before anything is done", async () => {
    const here = await world();
    await here.billing.run();
    expect(await here.run({ allow: [] })).toMatchObject({
      outcome: "refused",
      done: [],
      error: {
        code: "BREAKING_REFUSED",
        retryable: false,
        message: expect.stringContaining("3_t3.up.sql") as string,
        hint: expect.stringContaining("--allow-breaking") as string,
        fields: { migration: "3_t3.up.sql", version: "3", breaking: 1 },
      },
    });
    expect(await here.run({ allow: [], ...upBy(2) })).toMatchObject({ to: { version: "2" }, error: null });
    expect(await here.run({ allow: [] })).toMatchObject({ error: { code: "BREAKING_REFUSED" } });
    expect(await here.run()).toMatchObject({ to: { version: "3" }, error: null });
    // Down again is what a person asks for by name.
    expect(
      await here.run({ allow: [], goal: { kind: "steps", direction: "down", count: 1 }, action: "rollback" }),
    ).toMatchObject({
      error: null,
    });
    expect(await here.run({ allow: [], goal: { kind: "redo" } })).toMatchObject({ error: null });
  });

  test.for<RunTrigger>(["event", "library", "init", "converge"])(
    "is never applied by what starts by itself (%s), unless the target allows it",
    async (trigger) => {
      const here = await world();
      await here.billing.run();
      expect(await here.run({ trigger })).toMatchObject({
        error: { code: "BREAKING_REFUSED", hint: expect.stringContaining("allowBreaking: true") as string },
      });
      expect(await here.run({ trigger, allow: [] }, { allowsBreaking: true })).toMatchObject({
        error: null,
        to: { version: "3" },
      });
    },
  );

  test("stands in the plan with what it needs", async () => {
    const here = await world();
    const plan = await planRun({ goal: { kind: "latest" }, release: null }, here.orders, {
      signal: never,
      emit: () => undefined,
      now: () => new Date(),
    });
    expect(plan.steps.map(({ registered }) => registered)).toEqual([undefined, ...registry.migrations]);
    const down = await planRun(
      { goal: { kind: "version", version: "0", allow: "down" }, release: null },
      here.orders,
      {
        signal: never,
        emit: () => undefined,
        now: () => new Date(),
      },
    );
    expect(down.steps).toEqual([]);
  });
});
