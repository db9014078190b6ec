import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { describe, expect, onTestFinished, test } from "vitest";

import { formatEnding } from "../../src/cli/termination.ts";
import { RunnerError } from "../../src/error.ts";
import { call } from "./terminal.ts";

async function emptyFile(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-termination-"));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "termination-log");
  await writeFile(file, "what an earlier start has left behind, which is longer than what comes");
  return file;
}

describe("a termination message", () => {
  test("tells where, what, the database's state, the next step, and codes, in one line", () => {
    const error = new RunnerError("MIGRATION_FAILED", 'duplicate key value violates "orders_pkey"', {
      hint: "correct the migration\nand publish it",
      fields: { migration: "0041_idx.up.sql", line: 17, statement: 3, sqlstate: "23505", run: "orders.01JD" },
    });
    const state = "unchanged, at version 38";
    expect(formatEnding({ kind: "failed", error, exit: 21, target: "orders", state })).toBe(
      'lockkeeper FAILED orders: 0041_idx.up.sql:17: statement 3: duplicate key value violates "orders_pkey" [23505]; ' +
        "database: unchanged, at version 38; next: correct the migration and publish it; code=MIGRATION_FAILED exit=21 run=orders.01JD\n",
    );
  });

  test("is never longer than 1 KiB, keeps its codes, cuts no character in two, and holds no password", () => {
    for (const letter of ["x", "ü", "漢", "🔒"]) {
      for (let more = 0; more < 4; more += 1) {
        const error = new RunnerError("DATABASE_UNAVAILABLE", "x".repeat(more) + letter.repeat(3_000));
        const text = formatEnding({ kind: "failed", error, exit: 31, target: "orders" });
        expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1_024);
        expect(Buffer.byteLength(text)).toBeGreaterThan(1_010);
        expect(text).toMatch(/^lockkeeper FAILED orders: [^\uFFFD]+…; code=DATABASE_UNAVAILABLE exit=31\n$/u);
      }
    }
    const madeUp = new RunnerError("DEADLINE", "still running", { fields: { run: "r".repeat(9_000) } });
    expect(formatEnding({ kind: "failed", error: madeUp, exit: 32, target: "orders" })).toMatch(
      /^lockkeeper FAILED orders: still running; code=DEADLINE exit=32 run=r{160}\n$/,
    );
    const leaky = new RunnerError("CONFIG", "postgres://me:sesame@db/x: no");
    expect(formatEnding({ kind: "failed", error: leaky, exit: 2 })).not.toContain("sesame");
    expect(Buffer.byteLength(formatEnding({ kind: "done", words: "ä".repeat(2_000) }))).toBeLessThanOrEqual(
      1_024,
    );
  });

  test("is written for a command line that cannot be read, by a flag or a variable that names the file", async () => {
    const file = await emptyFile();
    const wrong = ["wait", "--releas", "sha256:1"];
    expect(await call([...wrong, "--termination-log", file])).toMatchObject({ code: 2 });
    expect(await readFile(file, "utf8")).toMatch(
      /^lockkeeper FAILED unknown option "--releas"; next: did you mean --release\?; code=USAGE exit=2\n$/,
    );
    await writeFile(file, "");
    await call(wrong, { variables: { LOCKKEEPER_TERMINATION_LOG: file } });
    expect(await readFile(file, "utf8")).toMatch(/code=USAGE/);
  });

  test("is not made where no file waits for it; that is said where the file was named, and changes no exit code", async () => {
    const file = `${await emptyFile()}-absent`;
    const { code, stderr } = await call(["wait", "--termination-log", file]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^warning: --termination-log: .*-absent cannot be written \(ENOENT\)$/m);
    await expect(readFile(file)).rejects.toMatchObject({ code: "ENOENT" });
  });

  test("leaves what is no regular file alone", async () => {
    const { stderr } = await call(["wait", "--termination-log", "/dev/null"]);
    expect(stderr).toMatch(/cannot be written \(it is no regular file\)/);
  });

  test("is not touched by verbs that only look, which a person runs beside a container's program", async () => {
    const file = await emptyFile();
    const before = await readFile(file, "utf8");
    await call(["status", "--nonsense"], { variables: { LOCKKEEPER_TERMINATION_LOG: file } });
    await call(["wait", "--help"], { variables: { LOCKKEEPER_TERMINATION_LOG: file } });
    expect(await readFile(file, "utf8")).toBe(before);
  });
});
