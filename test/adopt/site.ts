import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { onTestFinished } from "vitest";
import { adopt, endInStep, previewAdoption, type AdoptionWish } from "../../src/adopt/adopt.ts";
import { openDriver } from "../../src/driver/open.ts";
import type { RunResult } from "../../src/executor/result.ts";
import type { HistoryEntry } from "../../src/history/entry.ts";
import { namedFormat } from "../../src/migration/format/choose-format.ts";
import type { FormatName } from "../../src/migration/format/format.ts";
import type { Engine } from "../../src/migration/migration.ts";
import { plainReleases } from "../../src/release/folder/plain.ts";
import type { Declaration } from "../../src/run/declare.ts";
import { newRunId, run, type RunRequest, type Target } from "../../src/runner.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { folderSource, tempFolder } from "../support/release.ts";
import { never } from "../support/steps.ts";

/** A database and a folder, that another tool and we use by turns. */
export interface Site {
  readonly url: string;
  readonly folder: string;
  readonly target: Target;
  /** adds files to the folder, or to another */
  write(files: Readonly<Record<string, string>>, into?: string): Promise<void>;
  adopt(wish?: Partial<AdoptionWish>): ReturnType<typeof adopt>;
  preview(wish?: Partial<AdoptionWish>): ReturnType<typeof previewAdoption>;
  endInStep(): ReturnType<typeof endInStep>;
  run(change?: Partial<RunRequest>): Promise<RunResult>;
  history(): Promise<readonly HistoryEntry[]>;
}

/** One whose database a test looks into. */
export interface PostgresSite extends Site {
  readonly database: TestDatabase;
}

/** How a site's folder is read, and who uses its database. */
export interface SiteOptions {
  readonly engine?: Engine;
  readonly format?: FormatName;
  readonly allowLate?: boolean;
  /** as the last part of the database's URL: another role, a search path */
  readonly url?: (url: string) => string;
  readonly waitMs?: number;
}

/** A fresh database, and a folder with these files. */
export async function makeSite(
  files: Readonly<Record<string, string>>,
  options: SiteOptions = {},
): Promise<PostgresSite> {
  const folder = await tempFolder(files);
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const database = await createDatabase();
  return { ...(await siteOn(database, folder.path, options)), database };
}

/** The same database and folder, as another would use them. */
export async function siteOn(
  database: { readonly url: string },
  folder: string,
  options: SiteOptions = {},
): Promise<Site> {
  const url = options.url?.(database.url) ?? database.url;
  const driver = await openDriver(url);
  onTestFinished(() => driver.close());
  const { engine = "postgres" } = options;
  const releases = plainReleases({
    source: folderSource(folder),
    stream: "orders",
    environment: "default",
    engine,
    format: namedFormat(options.format ?? "golang-migrate", { engine, variables: {}, placeholders: {} }),
    allowLate: options.allowLate ?? false,
  });
  const limits = {
    waitMs: options.waitMs ?? 30_000,
    lockTimeoutMs: 5_000,
    statementTimeoutMs: 0,
    deadlineMs: 0,
  };
  const target: Target = { name: "t", stream: "orders", environment: "default", releases, driver, limits };
  const runOptions = { signal: never, emit: () => undefined, now: () => new Date() };
  return {
    url,
    folder,
    target,
    async write(more, into = folder) {
      for (const [name, text] of Object.entries(more)) await writeFile(join(into, name), text);
    },
    adopt: (wish) => adopt({ ...plainWish, ...wish }, declaration, target, runOptions),
    preview: (wish) => previewAdoption({ ...plainWish, ...wish }, target, runOptions),
    endInStep: () => endInStep(declaration, target, runOptions),
    run: (change = {}) =>
      run(
        {
          id: newRunId("t"),
          action: "apply",
          goal: { kind: "latest" },
          release: null,
          plan: null,
          trigger: "cli",
          caller: declaration.caller,
          labels: {},
          limits,
          isAccepted: false,
          ...change,
        },
        target,
        runOptions,
      ),
    history: () => driver.history("orders", {}, never),
  };
}

/** Goes back by `count`. */
export function back(count: number): Partial<RunRequest> {
  return { action: "rollback", goal: { kind: "steps", direction: "down", count } };
}

const plainWish: AdoptionWish = {
  from: undefined,
  table: undefined,
  keepsInStep: undefined,
  ignoresChecksums: false,
};

/** Who declares, in these tests. */
export const declaration: Declaration = {
  reason: "the old tool goes",
  caller: { issuer: "os", subject: "tester", rule: null },
  trigger: "cli",
};

/** `N_title` pairs that each make a table and take it away again, as golang-migrate wants them. */
export function pairs(...versions: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    versions.flatMap((version) => {
      const table = `t${Number(version)}`;
      return [
        [`${version}_${table}.up.sql`, `CREATE TABLE ${table} (id int);\n`],
        [`${version}_${table}.down.sql`, `DROP TABLE ${table};\n`],
      ];
    }),
  );
}
