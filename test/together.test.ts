import { describe, expect, test } from "vitest";

import { Together } from "../src/together.ts";
import { never } from "./support/steps.ts";

/** Messages that are answered when the test says so. */
function held(): {
  readonly sent: (readonly number[])[];
  readonly act: (items: readonly number[]) => Promise<readonly number[]>;
  answer(): void;
  refuse(reason: Error): void;
} {
  const sent: (readonly number[])[] = [];
  let under = Promise.withResolvers<void>();
  return {
    sent,
    async act(items) {
      sent.push(items);
      under = Promise.withResolvers();
      await under.promise;
      return items.map((item) => item * 10);
    },
    answer: () => under.resolve(),
    refuse: (reason) => under.reject(reason),
  };
}

describe("what many ask for at once", () => {
  test("goes in the message after the one that is under way, in its order, and each has its own answer", async () => {
    const { sent, act, answer } = held();
    const together = new Together(act, 3);
    const asked = [1, 2, 3, 4, 5].map((item) => together.add(item, never));
    expect(sent).toEqual([[1]]);
    answer();
    expect(await asked[0]).toBe(10);
    await expect.poll(() => sent).toEqual([[1], [2, 3, 4]]);
    answer();
    expect(await Promise.all(asked.slice(1, 4))).toEqual([20, 30, 40]);
    await expect.poll(() => sent).toEqual([[1], [2, 3, 4], [5]]);
    answer();
    expect(await asked[4]).toBe(50);
    const later = together.add(6, never);
    expect(sent.at(-1)).toEqual([6]);
    answer();
    expect(await later).toBe(60);
  });

  test("fails for all of a message, and for nobody after it", async () => {
    const { sent, act, answer, refuse } = held();
    const together = new Together(act, 10);
    const first = together.add(1, never);
    const others = [together.add(2, never), together.add(3, never)];
    refuse(new Error("away"));
    await expect(first).rejects.toThrow("away");
    await expect.poll(() => sent.length).toBe(2);
    answer();
    expect(await Promise.all(others)).toEqual([20, 30]);
  });

  test("fails only for those to whom it is said, where each is answered by itself", async () => {
    const each = async (item: number): Promise<number> => {
      if (item === 2) throw new Error("not two");
      return item;
    };
    const together = new Together(async (items: readonly number[]) => items.map(each), 10);
    const asked = [1, 2, 3].map((item) => together.add(item, never));
    expect((await Promise.allSettled(asked)).map(({ status }) => status)).toEqual([
      "fulfilled",
      "rejected",
      "fulfilled",
    ]);
  });

  test("is not sent for somebody who has left, and is not waited for by somebody who leaves", async () => {
    const { sent, act, answer } = held();
    const together = new Together(act, 10);
    const [impatient, waiting] = [new AbortController(), new AbortController()];
    const first = together.add(1, impatient.signal);
    const second = together.add(2, waiting.signal);
    const third = together.add(3, never);
    impatient.abort(new Error("left first"));
    waiting.abort(new Error("left second"));
    await expect(first).rejects.toThrow("left first");
    await expect(second).rejects.toThrow("left second");
    await expect(together.add(4, waiting.signal)).rejects.toThrow("left second");
    answer();
    await expect.poll(() => sent).toEqual([[1], [3]]);
    answer();
    expect(await third).toBe(30);
  });
});
