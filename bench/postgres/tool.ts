import path from "node:path";
import { partsFolder } from "../../test/support/parts.ts";
import type { Command } from "../measure.ts";
import { lockkeeper, type Ours } from "../scene.ts";
import type { Layout } from "./migrations.ts";

/** Where one set of migrations can be had, in every form that a tool takes. */
export interface Place {
  readonly folders: Readonly<Record<Layout, string>>;
  readonly bucket: {
    readonly endpoint: string;
    readonly name: string;
    /** of the plain files; ends with a slash */
    readonly plainPrefix: string;
    readonly releasePrefix: string;
    readonly credentials: { readonly accessKeyId: string; readonly secretAccessKey: string };
  };
  /** file with the public key that signed the release */
  readonly publicKey: string;
}

/** A tool with the way it gets its migrations. */
export interface Tool {
  readonly name: string;
  /** where it reads the migrations */
  readonly source: "folder" | "bucket";
  /** brings the database up to the newest migration */
  up(place: Place, database: string): Command;
}

/** Every tool of the comparison, in the order in which they take turns. */
export function tools(ours: Ours): readonly Tool[] {
  return [
    {
      name: "lockkeeper, folder",
      source: "folder",
      up: ({ folders }, database) =>
        lockkeeper(ours, ["up", "--source", folders["golang-migrate"], "--unsigned", "--database", database]),
    },
    {
      name: "lockkeeper, signed release",
      source: "bucket",
      up: ({ bucket, publicKey }, database) => {
        const source = `s3://${bucket.name}/${bucket.releasePrefix}`;
        const what = ["--source", source, "--stream", "bench", "--trust", publicKey, "--database", database];
        return lockkeeper(ours, ["up", ...what, ...s3Flags(bucket)], s3Variables(bucket));
      },
    },
    {
      name: "lockkeeper, plain bucket",
      source: "bucket",
      up: ({ bucket }, database) => {
        const what = [
          "--source",
          `s3://${bucket.name}/${bucket.plainPrefix}`,
          "--unsigned",
          "--database",
          database,
        ];
        return lockkeeper(ours, ["up", ...what, ...s3Flags(bucket)], s3Variables(bucket));
      },
    },
    {
      name: "golang-migrate, folder",
      source: "folder",
      up: ({ folders }, database) => ({
        program: peer("migrate"),
        args: ["-path", folders["golang-migrate"], "-database", database, "up"],
      }),
    },
    {
      name: "golang-migrate, bucket",
      source: "bucket",
      up: ({ bucket }, database) => ({
        program: peer("golang-migrate-s3"),
        args: [bucket.endpoint, bucket.name, bucket.plainPrefix, database],
        env: s3Variables(bucket),
      }),
    },
    {
      name: "goose, folder",
      source: "folder",
      up: ({ folders }, database) => ({
        program: peer("goose"),
        args: ["-dir", folders.goose, "postgres", database, "up"],
      }),
    },
  ];
}

/** A program that `bench/peers/install.sh` built. */
export function peer(name: string): string {
  return path.join(partsFolder, "peers", name);
}

/** The flags by which lockkeeper reaches an S3 server that is not Amazon's. */
export function s3Flags({ endpoint }: Place["bucket"]): readonly string[] {
  return ["--s3-endpoint", endpoint, "--s3-region", region, "--s3-path-style"];
}

const region = "us-east-1";

/** The environment by which lockkeeper and others reach an S3 server. */
export function s3Variables({ credentials }: Place["bucket"]): Readonly<Record<string, string>> {
  return {
    AWS_REGION: region,
    AWS_ACCESS_KEY_ID: credentials.accessKeyId,
    AWS_SECRET_ACCESS_KEY: credentials.secretAccessKey,
  };
}
