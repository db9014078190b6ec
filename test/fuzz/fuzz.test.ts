import { describe, expect, test } from "vitest";

import { RunnerError } from "../../src/error.ts";
import { inputOf, judge, runCases } from "./run-cases.ts";
import type { Subject } from "./subject.ts";
import { subjects } from "./subjects.ts";

/** What each parser takes; `npm run fuzz` gives it thousands of times as many (README.md). */
const cases = 500;
/** Other tests run beside these, and what they do to caches makes the processor several times as slow. */
const maxMs = 2_000;

describe("every parser of bytes from outside", () => {
  test("has a name of its own, and accepts one right input at least", async () => {
    expect(new Set(subjects.map(({ name }) => name)).size).toBe(subjects.length);
    for (const subject of subjects) {
      const judged = await Promise.all(subject.corpus.map((input) => judge(subject, input)));
      expect(
        judged.some(({ kind }) => kind === "accepted"),
        subject.name,
      ).toBe(true);
      expect(
        judged.filter(({ kind }) => kind === "fault"),
        subject.name,
      ).toEqual([]);
    }
  });

  test.for(subjects.map(({ name }) => name))(
    "%s accepts nothing wrong, breaks on nothing and is not held up",
    async (name) => {
      const subject = subjects.find((each) => each.name === name);
      if (subject === undefined) throw new Error(`${name} is in the list`);
      const count = Math.ceil(cases / (subject.cost ?? 1));
      const { findings, ...counts } = await runCases(subject, { seed: 20_261_121, from: 0, count, maxMs });
      expect(
        findings.map(({ fault, what, input }) => `${fault}: ${what}: ${input.toString("base64")}`),
      ).toEqual([]);
      expect(counts.cases).toBe(count);
    },
  );
});

describe("the fuzzer itself", () => {
  const corpus = [Buffer.from('{"version":12,"name":"orders"}')];
  const find = async (read: Subject["read"]) => {
    const { findings } = await runCases(
      { name: "planted", corpus, read },
      { seed: 1, from: 0, count: 3_000 },
    );
    return findings.map(({ fault }) => fault);
  };

  test("makes the same input of the same seed and case, and others of others", () => {
    const inputs = (seed: number) =>
      Array.from({ length: 50 }, (_, index) =>
        inputOf({ name: "a", corpus, read: () => undefined }, seed, index),
      );
    expect(inputs(7)).toEqual(inputs(7));
    expect(new Set([...inputs(7), ...inputs(8)].map(String)).size).toBeGreaterThan(80);
  });

  test("finds what is accepted although it is wrong, and makes the input small", async () => {
    const subject: Subject = {
      name: "planted",
      corpus,
      read: (input) => (input.includes("__proto__") ? "a name that every object has" : undefined),
    };
    const { findings } = await runCases(subject, { seed: 1, from: 0, count: 3_000 });
    expect(findings).toMatchObject([{ fault: "accepted", input: Buffer.from("__proto__") }]);
  });

  test("finds a duplicate that the last one wins, as in JSON.parse", async () => {
    const first = (input: Buffer) => /"version":(\d+)/.exec(input.toString())?.[1];
    const faults = await find((input) => {
      let value: unknown;
      try {
        value = JSON.parse(input.toString());
      } catch (cause) {
        throw new RunnerError("JSON_SYNTAX", "not JSON", { cause });
      }
      const version: unknown = Reflect.get(Object(value) as object, "version");
      return first(input) === undefined || first(input) === String(version)
        ? undefined
        : "two readers, two versions";
    });
    expect(faults).toEqual(["accepted"]);
  });

  test("finds an error without a code, an INTERNAL, and one that repeats what a terminal obeys or all of its input", async () => {
    expect(await find((input) => String(JSON.parse(input.toString()) === 1))).toContain("crashed");
    expect(
      await find(() => {
        throw new RunnerError("INTERNAL", "a defect");
      }),
    ).toEqual(["crashed"]);
    const telling = (text: string) =>
      find(() => {
        throw Object.defineProperty(new RunnerError("SCHEMA", "a"), "message", { value: text });
      });
    expect(await telling("\u001b[2J")).toEqual(["told too much"]);
    expect(await telling("a".repeat(20_000))).toEqual(["told too much"]);
  });

  test("finds an input that takes more than its share of the processor", async () => {
    // only what is filled up to the ceiling, and only four times: once, and as often as it is measured again
    let left = 4;
    const faults = await find((input) => {
      if (input.length > 60_000 && left-- > 0) spend(400);
      return undefined;
    });
    expect(faults).toEqual(["slow"]);
  });
});

function spend(cpuMs: number): void {
  const before = process.threadCpuUsage();
  let spent = 0;
  while (spent < cpuMs) {
    for (let step = 0; step < 1_000_000; step++) Math.sqrt(step);
    const { user, system } = process.threadCpuUsage(before);
    spent = (user + system) / 1_000;
  }
}
