import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { expect, test } from "vitest";

import { createDatabase, type TestDatabase } from "../support/database.ts";
import { folderSource, makeKey, publishTo, type Files } from "../support/release.ts";
import { call, type Call } from "../cli/terminal.ts";
import { makeWiring } from "../../src/bin/wire.ts";
import { folderWith } from "./program.ts";

const users = { "1_users.up.sql": "create table users (id int);", "1_users.down.sql": "drop table users;" };

/** A target of a configuration file on a folder of signed releases beside it. */
function entry(name: string, database: string, more = ""): string {
  return `  ${name}: { engine: postgres, stream: ${name}, source: "./${name}", trust: key, database: { url: "${database}" }${more} }`;
}

/** The verb with a configuration, in this process. */
function run(
  argv: readonly string[],
  config: string,
  variables: Readonly<Record<string, string>> = {},
): Promise<Call> {
  return call([...argv, "--config", config], { variables, wiring: makeWiring(variables) });
}

interface Report {
  readonly exitCode: number;
  readonly targets: readonly {
    readonly target: string;
    readonly outcome: string;
    readonly exitCode: number;
    readonly error: { code: string } | null;
  }[];
}

test(
  "converge --all brings every target there, shows each, and ends with the exit code of the worst",
  { timeout: 60_000 },
  async () => {
    const key = makeKey();
    const databases = new Map<string, TestDatabase>();
    const releases: Readonly<Record<string, Files>> = {
      done: users,
      fresh: users,
      broken: { "1_broken.up.sql": "select 1/0;" },
      held: users,
      paused: users,
      away: users,
    };
    const folder = await folderWith({ "key.pub": key.publicPem });
    for (const [name, files] of Object.entries(releases)) {
      databases.set(name, await createDatabase());
      await publishTo(folderSource(join(folder, name)), files, { keys: [key], stream: name });
    }
    const urlOf = (name: string) => databases.get(name)?.url ?? "";
    const config = (more: readonly string[] = []) =>
      [
        "version: 1",
        "trust: { key: { keys: [./key.pub] } }",
        "targets:",
        entry("done", urlOf("done")),
        entry("fresh", urlOf("fresh")),
        entry("held", urlOf("held")),
        entry("paused", urlOf("paused"), ", paused: true"),
        ...more,
      ].join("\n");
    const file = join(folder, "lockkeeper.yaml");
    const worseFile = join(folder, "worse.yaml");
    await writeFile(file, config());
    const away = entry("away", "postgres://nobody@127.0.0.1:1/none?connect_timeout=2");
    await writeFile(worseFile, config([entry("broken", urlOf("broken")), away]));
    expect(await run(["up", "--target", "done"], file)).toMatchObject({ code: 0 });
    expect(await run(["up", "--target", "held"], file)).toMatchObject({ code: 0 });
    expect(await run(["down", "--target", "held"], file)).toMatchObject({ code: 0 });

    const fine = await run(["converge", "--all"], file);
    expect(fine.code).toBe(0);
    expect(fine.stdout.split("\n").map((line) => line.trim().split(/ +/).slice(0, 2))).toEqual([
      ["target", "outcome"],
      ["done", "noop"],
      ["fresh", "applied"],
      ["held", "held"],
      ["paused", "paused"],
      [""],
    ]);
    expect(await databases.get("fresh")?.query("select from users")).toEqual([]);

    const worse = await run(["converge", "--all", "--output", "json"], worseFile);
    const report = JSON.parse(worse.stdout) as Report;
    expect([worse.code, report.exitCode]).toEqual([21, 21]);
    expect(
      report.targets.map(({ target, outcome, exitCode, error }) => [target, outcome, exitCode, error?.code]),
    ).toEqual([
      ["done", "noop", 0, undefined],
      ["fresh", "noop", 0, undefined],
      ["held", "held", 0, "HELD"],
      ["paused", "paused", 0, "PAUSED"],
      ["broken", "failed", 21, "MIGRATION_FAILED"],
      ["away", "failed", 31, "DATABASE_UNAVAILABLE"],
    ]);
  },
);

test(
  "converge --all takes nothing that is meant for one target, neither by flag nor by variable",
  { timeout: 60_000 },
  async () => {
    for (const [argv, variables, flag] of [
      [["--target", "orders"], {}, "target"],
      [["--release", `sha256:${"0".repeat(64)}`], {}, "release"],
      [[], { LOCKKEEPER_DATABASE: "postgres://localhost/x" }, "database"],
      [["--unsigned"], {}, "unsigned"],
    ] as const)
      expect(await run(["converge", "--all", ...argv], "lockkeeper.yaml", variables)).toMatchObject({
        code: 2,
        stderr: expect.stringContaining(`--all and --${flag} (or its variable) do not go together`) as string,
      });
  },
);
