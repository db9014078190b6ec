import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";

import { expect, onTestFinished, test } from "vitest";

import { createDatabase } from "../support/database.ts";
import { makeKey, publishTo, tempFolder, type Files } from "../support/release.ts";
import { bundled, startOne, type Started } from "./many.ts";

const replicas = 20;
const migrations = 6;
const numbers = Array.from({ length: migrations }, (_, index) => index + 1);

/** A Deployment that starts all its pods at once: `init` with a pinned release in each. */
async function deploy(files: Files, url: string): Promise<{ readonly start: () => Started }> {
  const key = makeKey();
  const folder = await tempFolder();
  onTestFinished(() => rm(folder.path, { recursive: true, force: true }));
  const { digest } = await publishTo(folder.source, files, { keys: [key] });
  const trust = join(folder.path, "orders.pub");
  await writeFile(trust, key.publicPem);
  const program = await bundled(join(folder.path, "program"));
  const release = ["--source", folder.path, "--trust", trust, "--stream", "orders", "--release", digest];
  const started: Started[] = [];
  onTestFinished(() => started.forEach(({ child }) => void child.kill("SIGKILL")));
  return {
    start() {
      const one = startOne(program, ["init", ...release, "--database", url], folder.path);
      started.push(one);
      return one;
    },
  };
}

test(
  "20 init containers at once on one PostgreSQL, of which the one at work is killed, apply each migration once, and all others exit 0",
  { timeout: 180_000 },
  async () => {
    const database = await createDatabase();
    const gate = await database.connect();
    await gate.query("select pg_advisory_lock(42)");
    const files = Object.fromEntries(
      numbers.map((n) => [
        `${n}_effect.up.sql`,
        `${n === 1 ? "create table effects (n int);" : ""}${n === 3 ? "select pg_advisory_xact_lock(42);" : ""} insert into effects values (${n});`,
      ]),
    );
    const { start } = await deploy(files, database.url);
    const pods = numbersOf(replicas).map(start);
    const waiting = `select pid from pg_locks where locktype = 'advisory' and objid = 42 and not granted
      and database = (select oid from pg_database where datname = current_database())`;
    while ((await database.query(waiting)).length === 0) await pause(20);

    const [row] = await database.query<{ holder: string }>("select holder from lockkeeper.streams");
    const pid = Number(row?.holder.split("/").at(-1));
    const victim = pods.find(({ child }) => child.pid === pid);
    victim?.child.kill("SIGKILL");
    expect(await victim?.ended).toMatchObject({ code: null });
    await database.query("update lockkeeper.streams set expires_at = now() - interval '1 s'");
    await gate.query("select pg_advisory_unlock(42)");

    const others = await Promise.all(pods.filter((pod) => pod !== victim).map(({ ended }) => ended));
    expect(others).toEqual(numbersOf(replicas - 1).map(() => ({ code: 0, said: "" })));
    const effects = await database.query<{ n: number }>("select n from effects order by n");
    expect(effects.map(({ n }) => n)).toEqual(numbers);
    const history = await database.query(
      "select seq, status from lockkeeper.history where status = 'done' order by seq",
    );
    expect(history).toEqual(numbers.map((seq) => ({ seq, status: "done" })));
    expect(await database.query("select holder from lockkeeper.streams")).toEqual([{ holder: null }]);
  },
);

function numbersOf(count: number): readonly number[] {
  return Array.from({ length: count }, (_, index) => index);
}
