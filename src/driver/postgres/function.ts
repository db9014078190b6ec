import { RunnerError } from "../../error.ts";
import type { MigrationContext } from "../../migration/code.ts";
import { scanSql } from "../../migration/scan-sql.ts";
import { TokenReader } from "../../migration/token-reader.ts";
import { unlessAborted } from "../program.ts";
import type { AppliedSteps, FunctionStep, SessionSettings } from "../session.ts";
import { committedMeanwhile, readDurations, recordFailure, settle, surroundings } from "./committed.ts";
import { functionFailure, originOf, type FailedStatement } from "./function-failure.ts";
import { mayTryAgain } from "./retry.ts";
import { openTransaction, runMark } from "./transaction.ts";
import type { Workbench } from "./workbench.ts";

/** Calls a body that is a program, in a transaction of its own with its history entry; see `LeasedSession.applyFunction`. */
export async function runFunction(
  bench: Workbench,
  step: FunctionStep,
  settings: SessionSettings,
): Promise<AppliedSteps> {
  const lockTimeoutMs = step.lockTimeoutMs ?? settings.lockTimeoutMs;
  // What it leaves in the session is put away with all that is prepared there.
  bench.preparedFor = undefined;
  for (let attempt = 1; ; attempt += 1) {
    bench.kept.assertTrusted();
    const body = { ...step, sql: "", sqlOffset: 0, alone: false };
    const { opening, closing } = openTransaction(body, surroundings(bench, settings));
    const line = new TransactionLine(bench, lockTimeoutMs);
    let isCalled = false;
    try {
      await bench.send(opening);
      isCalled = true;
      await unlessAborted(call(step, line, bench.kept.signal), bench.kept.signal);
      await line.end();
      isCalled = false;
      const [durationMs = 0] = readDurations(bench, await bench.sendBody(closing, lockTimeoutMs), 1);
      return { done: [{ durationMs }], failure: null };
    } catch (cause) {
      await line.end();
      const origin = originOf(cause, line.failed, isCalled);
      const failure = functionFailure(step, origin, bench.blocker);
      // What a program throws says nothing of the connection.
      const heard = origin.kind === "program" ? failure : origin.cause;
      await settle(bench, heard);
      const [durationMs] = await committedMeanwhile(bench);
      if (durationMs !== undefined) return { done: [{ durationMs }], failure: null };
      // A program that was told to stop may say so in its own words.
      bench.kept.assertTrusted();
      if (await mayTryAgain(bench, step, settings, heard, attempt)) continue;
      await recordFailure(bench, step, settings, failure);
      return { done: [], failure };
    }
  }
}

async function call(step: FunctionStep, line: TransactionLine, signal: AbortSignal): Promise<void> {
  const { direction, migration, path } = step;
  const context: MigrationContext = {
    sql: (text, values) => line.send(text, values ?? [], path),
    signal,
    log: (message) => step.onOutput(message),
    direction,
    version: migration.version,
  };
  await step.run(context);
}

/** What a program may send, one after the other, for as long as its transaction is open. */
class TransactionLine {
  /** the first that failed */
  failed: FailedStatement | undefined;
  readonly #bench: Workbench;
  readonly #lockTimeoutMs: number;
  readonly #pulse: NodeJS.Timeout;
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #isOver = false;

  constructor(bench: Workbench, lockTimeoutMs: number) {
    this.#bench = bench;
    this.#lockTimeoutMs = lockTimeoutMs;
    // The server ends a transaction of a process that is silent for a lease, as if it were frozen; a program may be busy elsewhere.
    this.#pulse = setInterval(() => this.#keepOpen(), bench.times.leaseMs / 3);
    this.#pulse.unref();
  }

  send(
    text: string,
    values: readonly unknown[],
    path: string,
  ): Promise<readonly Readonly<Record<string, unknown>>[]> {
    const place = new Error("sent from here");
    const answer = this.#next(async () => {
      try {
        assertNoTransactionControl(text, path);
        const message = `${runMark(this.#bench.key())}${text}`;
        const results = await this.#bench.sendBody(message, this.#lockTimeoutMs, values);
        return results.at(-1)?.rows ?? [];
      } catch (cause) {
        this.failed ??= { cause, stack: place.stack ?? "" };
        throw cause;
      }
    });
    // What a program does not wait for must not end the process; its transaction has failed all the same.
    answer.catch(() => undefined);
    return answer;
  }

  /** Lets in nothing more, and waits for what was sent. */
  async end(): Promise<void> {
    this.#isOver = true;
    clearInterval(this.#pulse);
    await this.#last.catch(() => undefined);
  }

  #keepOpen(): void {
    if (this.#waiting > 0) return;
    this.#next(() => this.#bench.send("SELECT")).catch(() => undefined);
  }

  #next<T>(work: () => Promise<T>): Promise<T> {
    if (this.#isOver) return Promise.reject(new Error("the transaction of this migration is over"));
    this.#waiting += 1;
    const done = this.#last.then(work, work).finally(() => (this.#waiting -= 1));
    this.#last = done.catch(() => undefined);
    return done;
  }
}

/**
 * The transaction is not the program's to end: the fence and the history entry are in it.
 *
 * @throws RunnerError `TRANSACTION_CONTROL`
 */
function assertNoTransactionControl(text: string, path: string): void {
  for (const statement of scanSql(text).statements) {
    const tokens = new TokenReader(text, statement);
    const word = tokens.word();
    if (word === undefined || !transactionControl.has(word)) continue;
    if (word === "ROLLBACK" && tokens.hasWord("TO")) continue;
    if (word === "PREPARE" && !tokens.hasWord("TRANSACTION")) continue;
    throw new RunnerError(
      "TRANSACTION_CONTROL",
      `"${path}" sends ${word}, but its transaction is opened and ended for it`,
      {
        hint: "leave it out; SAVEPOINT and ROLLBACK TO are fine",
        fields: { migration: path },
      },
    );
  }
}

const transactionControl: ReadonlySet<string> = new Set([
  "BEGIN",
  "START",
  "COMMIT",
  "END",
  "ROLLBACK",
  "ABORT",
  "PREPARE",
]);
