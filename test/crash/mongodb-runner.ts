/**
 * One runner of MongoDB as a process of its own, to be struck: the product's own `run` over a plain folder. Takes its job
 * as JSON in the first argument; its exit code is the command line's.
 */
import type { LeaseTimes } from "../../src/driver/lease-keeper.ts";
import { openMongo } from "../../src/driver/mongodb/mongodb.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import { newRunId, run, type RunRequest, type Target } from "../../src/runner.ts";
import { openSource } from "../../src/source/open.ts";

/** What a runner is to do. */
export interface MongoJob {
  readonly databaseUrl: string;
  readonly folder: string;
  readonly times: LeaseTimes;
}

const began = performance.now();
const job = JSON.parse(process.argv[2] ?? "") as MongoJob;
const driver = openMongo(job.databaseUrl, { times: job.times });
const limits = { waitMs: 120_000, lockTimeoutMs: 0, statementTimeoutMs: 0, deadlineMs: 0 };
const request: RunRequest = {
  id: newRunId("crash"),
  action: "apply",
  goal: { kind: "latest" },
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
  stream: "orders",
  environment: "default",
  releases: plainReleases({
    source: await openSource(job.folder, {}),
    stream: "orders",
    environment: "default",
    engine: "mongodb",
    allowLate: false,
  }),
  driver,
  limits,
  orphans: "wait",
};
const options = {
  signal: new AbortController().signal,
  emit: (event: object) =>
    process.stderr.write(`${Math.round(performance.now() - began)} ms ${JSON.stringify(event)}\n`),
  now: () => new Date(),
};
try {
  const { error } = await run(request, target, options);
  if (error !== null) process.stderr.write(`${error.code}: ${error.message}\n${String(error.cause)}\n`);
  process.exitCode = error?.exit ?? 0;
} finally {
  await driver.close();
}
