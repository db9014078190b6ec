import path from "node:path";
import { onTestFinished } from "vitest";
import { type DriverOptions, openDriver } from "../../src/driver/open.ts";
import type { RunEvent } from "../../src/executor/event.ts";
import type { RunResult } from "../../src/executor/result.ts";
import { newRunId, run, type RunRequest, type Target } from "../../src/runner.ts";
import type { ReleaseProvider } from "../../src/release/release.ts";
import { signedReleases } from "../../src/release/signed.ts";
import { type HeldReleases, makeRelease, type MigrationText, provide } from "./plain-release.ts";
import { makeKeys, publishTo, recorded, tempFolder } from "./release.ts";
import { never } from "./steps.ts";

/** A target on a test's database. */
export interface TestTarget<Releases extends ReleaseProvider = ReleaseProvider> extends Target {
  readonly releases: Releases;
  /** what the runs have said so far */
  readonly events: RunEvent[];
  /** One run, by default of `apply` to the latest; the result also where it failed. */
  run(change?: Partial<RunRequest>, signal?: AbortSignal): Promise<RunResult>;
}

/** A target whose releases are in memory and can be exchanged. */
export interface PlainTarget extends TestTarget<HeldReleases> {
  /** Other files from now on. */
  publish(...made: Parameters<typeof makeRelease>): Promise<void>;
}

/** Opens a target on unsigned migrations; its driver is closed when the test has ended. */
export async function openTarget(
  url: string,
  texts: readonly MigrationText[],
  options: TargetOptions = {},
  repeatable: Parameters<typeof makeRelease>[1] = [],
): Promise<PlainTarget> {
  const releases = provide(await makeRelease(texts, repeatable));
  return {
    ...(await targetOn(url, releases, options)),
    async publish(...made) {
      releases.current = await makeRelease(...made);
    },
  };
}

/** A folder of signed releases, and the requests it was asked. */
export interface SignedStore {
  readonly requests: string[];
  /** path of the file that names its newest release */
  readonly head: string;
  /** Publishes these migrations as the next release, and gives its digest. */
  publish(texts: readonly MigrationText[], environments?: readonly string[]): Promise<string>;
  /** Another target on the same releases. */
  open(url: string, options?: TargetOptions): Promise<TestTarget>;
}

/** A store with these migrations as its first release; gone when the test has ended. */
export async function signedStore(texts: readonly MigrationText[]): Promise<SignedStore> {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const { key, trust } = makeKeys();
  const { source, requests } = recorded(folder.source);
  const store: SignedStore = {
    requests,
    head: path.join(folder.path, "head.json"),
    async publish(next, environments = ["default"]) {
      const files = next.flatMap(({ path, up, down }) => [
        [path, up],
        ...(down === undefined ? [] : [[path.replace(".up.", ".down."), down]]),
      ]);
      const { digest } = await publishTo(folder.source, Object.fromEntries(files), {
        keys: [key],
        environments,
      });
      return digest;
    },
    open(url, options = {}) {
      const environment = options.environment ?? "default";
      return targetOn(
        url,
        signedReleases({ source, stream: "orders", environment, engine: "postgres", trust }),
        options,
      );
    },
  };
  await store.publish(texts);
  return store;
}

interface TargetOptions {
  readonly driver?: DriverOptions;
  readonly environment?: string;
  readonly observers?: Target["observers"];
}

/** Opens a target on any releases; its driver is closed when the test has ended. */
export async function targetOn<Releases extends ReleaseProvider>(
  url: string,
  releases: Releases,
  options: TargetOptions = {},
): Promise<TestTarget<Releases>> {
  const driver = await openDriver(url, options.driver);
  onTestFinished(() => driver.close());
  const events: RunEvent[] = [];
  const target = {
    name: "t",
    stream: releases.stream,
    environment: options.environment ?? "default",
    releases,
    driver,
    limits: { waitMs: 20_000, lockTimeoutMs: 5_000, statementTimeoutMs: 0, deadlineMs: 0 },
    ...(options.observers === undefined ? {} : { observers: options.observers }),
  };
  return {
    ...target,
    events,
    run(change = {}, signal = never) {
      return run(requestOf(target, change), target, {
        signal,
        emit: (event) => events.push(event),
        now: () => new Date(),
      });
    },
  };
}

/** What is asked of a target: by default `apply` to the latest. */
export function requestOf({ limits }: Pick<Target, "limits">, change: Partial<RunRequest> = {}): RunRequest {
  return {
    id: newRunId("t"),
    action: "apply",
    goal: { kind: "latest" },
    release: null,
    plan: null,
    trigger: "cli",
    caller: { issuer: "os", subject: "tester", rule: null },
    labels: {},
    limits,
    isAccepted: false,
    ...change,
  };
}

/** `count` migrations that each make a table, and take it away again. */
export function tableMigrations(count: number): readonly MigrationText[] {
  return Array.from({ length: count }, (_, index) => ({
    path: `${index + 1}_t${index + 1}.up.sql`,
    up: `CREATE TABLE t${index + 1} (id int);`,
    down: `DROP TABLE t${index + 1};`,
  }));
}
