import { existsSync } from "node:fs";
import path from "node:path";
import { findPart, partsFolder } from "../../test/support/parts.ts";
import type { Command } from "../measure.ts";
import { lockkeeper, type Ours } from "../scene.ts";
import type { Layout } from "./migrations.ts";

/** Where one set of migrations can be had, in every form that a tool takes. */
export interface Place {
  readonly folders: Readonly<Record<Layout, string>>;
  /** in S3 */
  readonly bucket: {
    readonly endpoint: string;
    readonly name: string;
    /** of the plain files; ends with a slash, as golang-migrate wants it */
    readonly plainPrefix: string;
    readonly releasePrefix: string;
    readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  };
  /** name of a bucket in GCS, where the same lies under the same prefixes */
  readonly gcsBucket: string;
  /** whether the plain files lie there too, up to {@link plainGcsMost} */
  readonly hasPlainGcs: boolean;
  /** file with the public key that signed the release */
  readonly publicKey: string;
}

/** fake-gcs-server goes through all its objects at each request: with 10,000 it would be itself that is measured. */
export const plainGcsMost = 1_000;

/** The stream of all releases here. */
export const stream = "bench";

/** How a tool reaches the servers: directly, or each through a proxy. */
export interface Route {
  /** of the database */
  readonly url: string;
  readonly s3Endpoint: string;
  readonly gcsEndpoint: string;
}

/** A tool with the way it gets its migrations. */
export interface Tool {
  readonly name: ToolName;
  /** where it reads the migrations */
  readonly source: "folder" | "s3" | "gcs";
  readonly isOurs: boolean;
  /** the most migrations it is measured with; from some number on each takes longer than the one before, here or in our server */
  readonly most: number;
  /** its program, where that is on this machine */
  readonly program: string | undefined;
  /** brings the database up to the newest migration */
  up(place: Place, route: Route): Omit<Command, "program">;
}

/** What the tables call the tools, in the order in which they take turns. */
export const toolNames = [
  "lockkeeper, folder",
  "lockkeeper, signed release, S3",
  "lockkeeper, signed release, GCS",
  "lockkeeper, plain files, S3",
  "golang-migrate, folder",
  "golang-migrate, S3",
  "golang-migrate, GCS",
  "goose, folder",
  "dbmate, folder",
  "Atlas, folder",
  "Flyway, folder",
] as const;

/** One of {@link toolNames}. */
export type ToolName = (typeof toolNames)[number];

/** Every tool of the comparison. */
export function tools(ours: Ours): readonly Tool[] {
  return toolNames.map((name) => ({ name, ...describe(name, ours) }));
}

function describe(name: ToolName, ours: Ours): Omit<Tool, "name"> {
  switch (name) {
    case "lockkeeper, folder":
      return {
        ...own,
        source: "folder",
        up: ({ folders }, { url }) => up(ours, url, ["--source", folders["golang-migrate"], "--unsigned"]),
      };
    case "lockkeeper, signed release, S3":
      return {
        ...own,
        source: "s3",
        up: ({ bucket, publicKey }, { url, s3Endpoint }) => {
          const source = ["--source", `s3://${bucket.name}/${bucket.releasePrefix}`];
          const signed = ["--trust", publicKey];
          return up(ours, url, [...source, ...signed, ...s3Flags(s3Endpoint)], s3Variables(bucket));
        },
      };
    case "lockkeeper, signed release, GCS":
      return {
        ...own,
        source: "gcs",
        up: ({ gcsBucket, bucket, publicKey }, { url, gcsEndpoint }) => {
          const source = ["--source", `gs://${gcsBucket}/${bucket.releasePrefix}`];
          const signed = ["--trust", publicKey];
          return up(ours, url, [...source, ...signed, ...gcsFlags(gcsEndpoint)]);
        },
      };
    case "lockkeeper, plain files, S3":
      return {
        ...own,
        source: "s3",
        up: ({ bucket }, { url, s3Endpoint }) => {
          const source = ["--source", `s3://${bucket.name}/${bucket.plainPrefix}`, "--unsigned"];
          return up(ours, url, [...source, ...s3Flags(s3Endpoint)], s3Variables(bucket));
        },
      };
    case "golang-migrate, folder":
      return {
        isOurs: false,
        most: Infinity,
        source: "folder",
        program: built("migrate"),
        up: ({ folders }, { url }) => ({
          args: ["-path", folders["golang-migrate"], "-database", url, "up"],
        }),
      };
    case "golang-migrate, S3":
      return {
        isOurs: false,
        most: Infinity,
        source: "s3",
        program: built("golang-migrate-s3"),
        up: ({ bucket }, { url, s3Endpoint }) => ({
          args: [s3Endpoint, bucket.name, bucket.plainPrefix, url],
          env: s3Variables(bucket),
        }),
      };
    case "golang-migrate, GCS":
      return {
        isOurs: false,
        most: plainGcsMost,
        source: "gcs",
        program: built("migrate"),
        up: ({ gcsBucket, bucket }, { url, gcsEndpoint }) => ({
          args: ["-source", `gcs://${gcsBucket}/${bucket.plainPrefix}`, "-database", url, "up"],
          env: { STORAGE_EMULATOR_HOST: new URL(gcsEndpoint).host },
        }),
      };
    case "goose, folder":
      return {
        isOurs: false,
        most: Infinity,
        source: "folder",
        program: findPart("goose"),
        up: ({ folders }, { url }) => ({ args: ["-dir", folders.goose, "postgres", url, "up"] }),
      };
    case "dbmate, folder":
      return {
        isOurs: false,
        most: Infinity,
        source: "folder",
        program: findPart("dbmate"),
        up: ({ folders }, { url }) => ({
          args: ["--no-dump-schema", "--migrations-dir", folders.dbmate, "--url", url, "migrate"],
        }),
      };
    case "Atlas, folder":
      return {
        isOurs: false,
        most: quadraticMost,
        source: "folder",
        program: findPart("atlas"),
        up: ({ folders }, { url }) => ({ args: ["apply", "--dir", folders.atlas, "--url", url] }),
      };
    case "Flyway, folder":
      return {
        isOurs: false,
        most: quadraticMost,
        source: "folder",
        program: findPart("flyway"),
        up: ({ folders }, { url }) => {
          const { host, pathname, username, password } = new URL(url);
          const database = `-url=jdbc:postgresql://${host}${pathname}?sslmode=disable`;
          const login = [`-user=${username}`, `-password=${password}`];
          const files = `-locations=filesystem:${folders.flyway}`;
          return { args: ["-skipCheckForUpdate", files, database, ...login, "migrate"] };
        },
      };
  }
}

const own = { isOurs: true, most: Infinity, program: process.execPath } as const;

/** Of Atlas and Flyway: four times as long for twice as many, so that 10,000 would take many minutes. */
const quadraticMost = 1_000;

function up(
  ours: Ours,
  url: string,
  args: readonly string[],
  env?: Readonly<Record<string, string>>,
): Omit<Command, "program"> {
  return lockkeeper(ours, ["up", "--database", url, "--stream", stream, ...args], env);
}

/** The flags by which lockkeeper reaches an S3 server that is not Amazon's. */
export function s3Flags(endpoint: string): readonly string[] {
  return ["--s3-endpoint", endpoint, "--s3-region", region, "--s3-path-style"];
}

/** The flag by which lockkeeper reaches a GCS server that is not Google's. */
export function gcsFlags(endpoint: string): readonly string[] {
  return ["--gcs-endpoint", endpoint];
}

/** The environment by which lockkeeper and others reach an S3 server. */
export function s3Variables({
  credentials,
}: Pick<Place["bucket"], "credentials">): Readonly<Record<string, string>> {
  return {
    AWS_REGION: region,
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  };
}

const region = "us-east-1";

/** A program that `bench/peers/install.sh` built. */
function built(name: string): string | undefined {
  const file = path.join(partsFolder, "peers", name);
  return existsSync(file) ? file : undefined;
}
