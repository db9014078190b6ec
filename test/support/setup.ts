import type { TestProject } from "vitest/node";
import { startPostgres } from "./postgres.ts";

declare module "vitest" {
  // Merged into vitest's own interface: the type of `inject("postgresUrl")`.
  interface ProvidedContext {
    /** superuser on the run's PostgreSQL 18 */
    readonly postgresUrl: string;
  }
}

/** Once per run of vitest: one PostgreSQL 18 for all test files; `LOCKKEEPER_TEST_POSTGRES` names another to use instead. */
export async function setup(project: TestProject): Promise<(() => Promise<void>) | undefined> {
  const given = process.env["LOCKKEEPER_TEST_POSTGRES"];
  if (given !== undefined && given !== "") {
    project.provide("postgresUrl", given);
    return undefined;
  }
  const server = await startPostgres();
  project.provide("postgresUrl", server.url);
  return () => server.stop();
}
