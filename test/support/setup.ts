import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestProject } from "vitest/node";
import { startPostgres } from "./postgres.ts";

declare module "vitest" {
  // Merged into vitest's own interface: the type of `inject("postgresUrl")`.
  interface ProvidedContext {
    /** superuser on the run's PostgreSQL 18 */
    readonly postgresUrl: string;
  }
}

/**
 * Once per run of vitest: a folder for all temporary files of all tests, removed at the end, and one PostgreSQL 18 for all
 * test files; `LOCKKEEPER_TEST_POSTGRES` names another to use instead.
 */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = mkdtempSync(path.join(tmpdir(), "lockkeeper-run-"));
  // As /tmp itself: servers that do not run as root have their folders in it, too.
  chmodSync(folder, 0o1777);
  // The processes of the test files inherit it.
  process.env["TMPDIR"] = folder;

  const given = process.env["LOCKKEEPER_TEST_POSTGRES"];
  const server = given === undefined || given === "" ? await startPostgres() : undefined;
  project.provide("postgresUrl", server?.url ?? given ?? "");
  return async () => {
    await server?.stop();
    rmSync(folder, { recursive: true, force: true });
  };
}
