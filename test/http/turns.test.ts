import { describe, expect, test } from "vitest";
import { Turns } from "../../src/http/turns.ts";
import { never } from "../support/release.ts";
import { createWorld, users } from "./world.ts";

/** Work that goes on until it is told to end, and a list of what has begun. */
function workshop() {
  const begun: string[] = [];
  const ends = new Map<string, PromiseWithResolvers<void>>();
  const work = (name: string) => async (): Promise<string> => {
    begun.push(name);
    const end = Promise.withResolvers<void>();
    ends.set(name, end);
    await end.promise;
    return name;
  };
  return { begun, work, end: (name: string) => ends.get(name) };
}

describe("turns", () => {
  test("let so many work at once, the others one after the other as they came", async () => {
    const turns = new Turns({ atOnce: 2, waiting: 10 });
    const { begun, work, end } = workshop();
    const all = ["a", "b", "c", "d"].map((name) => turns.take(work(name), never));
    expect(begun).toEqual(["a", "b"]);
    end("b")?.resolve();
    await all[1];
    await expect.poll(() => begun).toEqual(["a", "b", "c"]);
    // who fails gives up the place as well
    end("a")?.reject(new Error("failed"));
    await expect(all[0]).rejects.toThrow("failed");
    await expect.poll(() => begun).toEqual(["a", "b", "c", "d"]);
    for (const name of ["c", "d"]) end(name)?.resolve();
    expect(await Promise.all(all.slice(2))).toEqual(["c", "d"]);
  });

  test("turn away whom nobody could wait for, and forget who left the line", async () => {
    const turns = new Turns({ atOnce: 1, waiting: 1 });
    const { begun, work, end } = workshop();
    const first = turns.take(work("first"), never);
    const leaver = new AbortController();
    const second = turns.take(work("second"), leaver.signal);
    await expect(turns.take(work("third"), never)).rejects.toMatchObject({ code: "RATE_LIMITED" });
    leaver.abort(new Error("left"));
    await expect(second).rejects.toThrow("left");
    const fourth = turns.take(work("fourth"), never);
    end("first")?.resolve();
    await first;
    await expect.poll(() => begun).toEqual(["first", "fourth"]);
    end("fourth")?.resolve();
    expect(await fourth).toBe("fourth");
    expect(await turns.take(() => Promise.resolve("free again"), never)).toBe("free again");
  });
});

test("a server that is asked too much at once says so, and when to come back", async () => {
  const world = await createWorld({ limits: { looks: 0, verifications: 0, waiting: 0 } });
  await world.bucket.publish(users);
  const asked = [
    world.send("GET", "/v1/targets/orders"),
    world.send("GET", "/v1/targets/orders/gate?min=1"),
    world.send("POST", "/v1/runs", { body: { target: "orders", action: "plan" } }),
    world.send("POST", "/v1/runs", { body: { target: "orders", action: "verify" } }),
  ];
  for (const { status, body, headers } of await Promise.all(asked)) {
    expect([status, body.code, headers.get("retry-after")]).toEqual([429, "RATE_LIMITED", "5"]);
  }
  const run = await world.send("POST", "/v1/runs", { body: { target: "orders", action: "apply" } });
  expect(run.body).toMatchObject({ outcome: "applied" });
});
