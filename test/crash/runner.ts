/**
 * One runner as a process of its own, to be struck: the product's own `run` with its own driver and source, nothing
 * exchanged. Takes its job as JSON in the first argument; tells how it ended as one line of JSON, and its exit code is
 * the command line's.
 */
import { openDriver } from "../../src/driver/open.ts";
import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";
import type { OrphanPolicy } from "../../src/driver/driver.ts";
import type { RunEvent } from "../../src/executor/event.ts";
import type { RunAction } from "../../src/history/run.ts";
import type { Goal } from "../../src/plan/plan.ts";
import { parsePublicKey } from "../../src/release/trust/key.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { makeTrust } from "../../src/release/trust/trust.ts";
import { newRunId, run, type RunRequest, type Target } from "../../src/runner.ts";
import { openSource, type SourceOptions } from "../../src/source/open.ts";

/** What a runner is to do. */
export interface Job {
  readonly databaseUrl: string;
  readonly sourceUrl: string;
  readonly source: SourceOptions;
  /** PEM */
  readonly publicKey: string;
  readonly stream: string;
  readonly goal: Goal;
  readonly action: RunAction;
  readonly times: LeaseTimes;
  readonly orphans: OrphanPolicy;
  /** milliseconds to wait for another's lease */
  readonly waitMs: number;
}

/** How a runner says that it ended. */
export interface Said {
  readonly status: string;
  readonly outcome: string | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly done: number;
  readonly left: number;
}

const began = performance.now();
const [, , given] = process.argv;
if (given === undefined) await load();
else await execute(JSON.parse(given) as Job);

/** Without a job: all that a runner loads is loaded, so that Node keeps it compiled for those that follow. */
async function load(): Promise<void> {
  await import("../../src/driver/postgres/postgres.ts");
  await import("../../src/source/s3.ts");
  await import("../../src/source/folder.ts");
}

async function execute(job: Job): Promise<void> {
  const key = parsePublicKey(job.publicKey, "the harness's key");
  const driver = await openDriver(job.databaseUrl, { times: job.times });
  const limits = { waitMs: job.waitMs, lockTimeoutMs: 0, statementTimeoutMs: 0, deadlineMs: 0 };
  const releases = signedReleases({
    source: await openSource(job.sourceUrl, job.source),
    stream: job.stream,
    environment: "default",
    engine: "postgres",
    trust: makeTrust({ keys: [key.id] }, [key], "the harness's trust"),
  });
  const request: RunRequest = {
    id: newRunId("crash"),
    action: job.action,
    goal: job.goal,
    release: null,
    plan: null,
    trigger: "cli",
    caller: { issuer: "cli", subject: `crash ${process.pid}`, rule: null },
    labels: {},
    limits,
    isAccepted: false,
  };
  const target: Target = {
    name: "crash",
    stream: job.stream,
    environment: "default",
    releases,
    driver,
    limits,
    orphans: job.orphans,
  };
  const options = { signal: new AbortController().signal, emit: tell, now: () => new Date() };
  try {
    const { status, outcome, error, done, left } = await run(request, target, options);
    const failure = error === null ? null : { code: error.code, message: error.message };
    const said: Said = { status, outcome, error: failure, done: done.length, left };
    process.stdout.write(`${JSON.stringify(said)}\n`);
    if (error?.code === "INTERNAL") process.stderr.write(`${String(error.cause)}\n`);
    process.exitCode = error?.exit ?? 0;
  } finally {
    await driver.close();
  }
}

function tell(event: RunEvent): void {
  process.stderr.write(`${Math.round(performance.now() - began)} ms ${JSON.stringify(event)}\n`);
}
