import { PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { sinksOf } from "../../src/cli/terminal.ts";

type Output = Parameters<typeof sinksOf>[0];

/** Two streams that note what is written to them, in one list. */
function openPair(isTerminal = false): { readonly sinks: ReturnType<typeof sinksOf>; written: string[] } {
  const written: string[] = [];
  const open = (name: string): Output => {
    const stream = new PassThrough();
    stream.on("data", (bytes: Buffer) => written.push(`${name} ${bytes.toString()}`));
    return Object.assign(stream, isTerminal ? { isTTY: true, columns: 80 } : {}) as unknown as Output;
  };
  return { sinks: sinksOf(open("out"), open("err")), written };
}

test("what is told in one breath is one write, and the streams keep their order", async () => {
  const { sinks, written } = openPair();
  for (const text of ["a", "b", "c"]) sinks.stderr.write(text);
  sinks.stdout.write("d");
  sinks.stderr.write("e");
  await Promise.resolve();
  sinks.stderr.write("f");
  await new Promise(setImmediate);
  expect(written).toEqual(["err abc", "out d", "err e", "err f"]);
});

test("a terminal is told at once", async () => {
  const { sinks, written } = openPair(true);
  sinks.stdout.write("a");
  sinks.stdout.write("b");
  await new Promise(setImmediate);
  expect(written).toEqual(["out a", "out b"]);
});

test("a process that ends in the middle says all that was told", async () => {
  const { sinks, written } = openPair();
  sinks.stderr.write("last words");
  sinks.flush();
  expect(written).toEqual(["err last words"]);
  await Promise.resolve();
  expect(written).toHaveLength(1);
});
