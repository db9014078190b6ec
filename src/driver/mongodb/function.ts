import type { ClientSession } from "mongodb";

import { RunnerError } from "../../error.ts";
import { unlessAborted } from "../program.ts";
import type { AppliedSteps, FunctionStep, SessionSettings } from "../session.ts";
import type { Bench } from "./bench.ts";
import { commandError, errorCode } from "./command-error.ts";
import { within } from "./database.ts";
import { lacksTransactions } from "./failure.ts";
import { functionFailure, serverCauseOf } from "./function-failure.ts";
import { lend } from "./lend.ts";
import { endTransactions } from "./pass-on.ts";
import { isTooOld, mayTryAgain } from "./retry.ts";
import { addDone, addFailed } from "./whole-entry.ts";

/** Transactions that the server had ended when the program wanted to go on; then it is the program that makes it do so. */
const mostEnded = 3;
/** milliseconds for the server to end a transaction of which nobody waits for the end */
const killMs = 1_000;

/** Calls a body that is a program, in a transaction of its own with its history entry; see `LeasedSession.applyFunction`. */
export async function applyFunction(
  bench: Bench,
  step: FunctionStep,
  settings: SessionSettings,
): Promise<AppliedSteps> {
  const body = { bench, step, settings };
  for (let attempt = 1, ended = 0; ; attempt += 1) {
    bench.kept.assertTrusted();
    if (!bench.database.hasTransactions)
      return { done: [], failure: await addFailed(body, withoutTransactions(step)) };
    const startedAt = performance.now();
    let isCalled = false;
    try {
      const applied = await bench.transaction(async (session) => {
        isCalled = true;
        await call(bench, step, session);
        isCalled = false;
        return addDone(body, session, startedAt);
      });
      return { done: [applied], failure: null };
    } catch (cause) {
      // A program that was told to stop may say so in its own words.
      bench.kept.assertTrusted();
      if (!isCalled && cause instanceof RunnerError) throw cause;
      if (!isCalled && lacksTransactions(cause)) {
        bench.database.giveUpTransactions();
        continue;
      }
      const told = serverCauseOf(cause);
      if (commandError(told)?.code === errorCode.noSuchTransaction) ended += 1;
      const isWorthIt = told !== undefined && ended < mostEnded && !isTooOld(told, startedAt);
      if (isWorthIt && (await mayTryAgain(bench, step, settings, told, attempt))) continue;
      return { done: [], failure: await addFailed(body, functionFailure(step, cause)) };
    }
  }
}

async function call(bench: Bench, step: FunctionStep, session: ClientSession): Promise<void> {
  const { direction, migration, path } = step;
  const { signal } = bench.kept;
  const lent = lend(bench.database, session, path);
  const run = async (): Promise<void> =>
    step.run({
      db: lent.db,
      session: lent.session,
      signal,
      log: (message) => step.onOutput(message),
      direction,
      version: migration.version,
    });
  try {
    await unlessAborted(run(), signal);
  } catch (cause) {
    lent.end();
    if (signal.aborted) await kill(bench, session);
    throw cause;
  } finally {
    lent.end();
  }
  if (lent.refused !== undefined) throw lent.refused;
}

/** With whatever the server works on in it; to abort it would be to wait for that. */
async function kill({ database }: Bench, { id }: ClientSession): Promise<void> {
  if (id === undefined) return;
  const enough = AbortSignal.timeout(killMs);
  await within(() => endTransactions(database, [id.id], enough), enough).catch(() => undefined);
}

function withoutTransactions({ path, migration }: FunctionStep): RunnerError {
  return new RunnerError(
    "DATABASE_UNSUPPORTED",
    `"${path}" is a program, which runs in one transaction, and this server has none`,
    {
      hint: "write the migration as commands, .json, for a server without transactions",
      fields: { migration: path, version: migration.version },
    },
  );
}
