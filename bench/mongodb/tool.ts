import path from "node:path";
import { part } from "../../test/support/parts.ts";
import type { Command } from "../measure.ts";
import { lockkeeper, type Ours } from "../scene.ts";
import type { Layout } from "./migrations.ts";

/** Where one set of migrations can be had, in every form that a tool takes. */
export interface Place {
  readonly folders: Readonly<Record<Layout, string>>;
  /** the release in a bucket: its URL, what reaches the server, and the file with the public key that signed it */
  readonly release: {
    readonly url: string;
    readonly flags: readonly string[];
    readonly env: Readonly<Record<string, string>>;
    readonly publicKey: string;
  };
}

/** A database to be brought up to the newest migration. */
export interface Goal {
  readonly place: Place;
  readonly databaseUrl: string;
  readonly database: string;
  /** a file for a configuration, which is the tool's own */
  readonly configFile: string;
}

/** A tool with the way it gets its migrations. */
export interface Tool {
  readonly name: string;
  /** what has to lie in the configuration file */
  config?(goal: Goal): string;
  up(goal: Goal): Command;
}

/** The stream of the releases. */
export const stream = "bench";

/** Every tool of the comparison, in the order in which they take turns. */
export function tools(ours: Ours): readonly Tool[] {
  return [
    {
      name: "lockkeeper, folder",
      up: ({ place, databaseUrl }) =>
        lockkeeper(ours, [
          "up",
          "--source",
          place.folders.commands,
          "--unsigned",
          "--stream",
          stream,
          "--database",
          databaseUrl,
        ]),
    },
    {
      name: "lockkeeper, signed release",
      up: ({ place: { release }, databaseUrl }) => {
        const from = ["--source", release.url, "--stream", stream, "--trust", release.publicKey];
        return lockkeeper(ours, ["up", ...from, "--database", databaseUrl, ...release.flags], release.env);
      },
    },
    { name: "golang-migrate, folder", up: (goal) => golangMigrate(goal, {}) },
    {
      name: "golang-migrate, folder, with its lock",
      up: (goal) => golangMigrate(goal, { "x-advisory-locking": "true" }),
    },
    {
      name: "migrate-mongo, folder",
      config: ({ place, databaseUrl, database }) =>
        `module.exports = ${JSON.stringify({
          mongodb: { url: databaseUrl, databaseName: database, options: {} },
          migrationsDir: place.folders.programs,
          changelogCollectionName: "changelog",
          lockCollectionName: "changelog_lock",
          lockTtl: 0,
          migrationFileExtension: ".cjs",
          useFileHash: false,
          moduleSystem: "commonjs",
        })};\n`,
      up: ({ configFile }) => ({
        program: process.execPath,
        args: [migrateMongo(), "up", "-f", configFile],
      }),
    },
  ];
}

function golangMigrate({ place, databaseUrl }: Goal, parameters: Readonly<Record<string, string>>): Command {
  const url = new URL(databaseUrl);
  for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
  return {
    program: part("golang-migrate"),
    args: ["-path", place.folders.commands, "-database", url.href, "up"],
  };
}

/** Past the shell script that npm links in its place. */
function migrateMongo(): string {
  return path.join(path.dirname(part("migrate-mongo")), "..", "migrate-mongo", "bin", "migrate-mongo.js");
}
