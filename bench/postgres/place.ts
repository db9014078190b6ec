import { readFile } from "node:fs/promises";
import path from "node:path";
import { findPart } from "../../test/support/parts.ts";
import type { BucketServer, S3Server } from "../../test/support/bucket.ts";
import { finish } from "../measure.ts";
import { lockkeeper, type Ours } from "../scene.ts";
import { type Layout, layouts, listMigrations, writeMigration, writeMigrations } from "./migrations.ts";
import { gcsFlags, type Place, plainGcsMost, s3Flags, s3Variables, stream } from "./tool.ts";

/** Uploads under way at once. */
const uploads = 16;

/** Who writes migrations, and where they can lie. */
export interface Printer {
  readonly ours: Ours;
  readonly s3: S3Server;
  readonly gcs: BucketServer;
  /** for the files, emptied by the caller at the end */
  readonly folder: string;
  /** file with the key that signs; its public half has `.pub` behind it */
  readonly privateKey: string;
}

/** Writes `count` migrations into folders and buckets, plain and as a signed release. */
export async function writePlace(printer: Printer, count: number, bytesEach = 0): Promise<Place> {
  const { s3, gcs, folder, privateKey } = printer;
  const folderOf = (layout: Layout): string => path.join(folder, `${layout}-${count}-${bytesEach}`);
  for (const layout of layouts) await writeMigrations(folderOf(layout), layout, count, bytesEach);
  const place: Place = {
    folders: {
      "golang-migrate": folderOf("golang-migrate"),
      goose: folderOf("goose"),
      dbmate: folderOf("dbmate"),
      atlas: folderOf("atlas"),
      flyway: folderOf("flyway"),
    },
    bucket: {
      endpoint: s3.endpoint,
      name: (await s3.createBucket()).replace("s3://", ""),
      plainPrefix: "plain/",
      releasePrefix: "release",
      credentials: s3.credentials,
    },
    gcsBucket: (await gcs.createBucket()).replace("gs://", ""),
    hasPlainGcs: count <= plainGcsMost,
    publicKey: `${privateKey}.pub`,
  };
  await upload(printer, place, await listMigrations(folderOf("golang-migrate")));
  await publish(printer, place);
  return place;
}

/** Adds the `count`-th migration, and a release with it. */
export async function extendPlace(printer: Printer, place: Place, count: number): Promise<void> {
  for (const layout of layouts) writeMigration(place.folders[layout], layout, count);
  const name = (await listMigrations(place.folders["golang-migrate"])).at(-1);
  if (name !== undefined) await upload(printer, place, [name]);
  await publish(printer, place);
}

async function publish({ ours, s3, gcs, privateKey }: Printer, place: Place): Promise<void> {
  const folder = place.folders["golang-migrate"];
  const how = ["--stream", stream, "--key", privateKey];
  const { bucket, gcsBucket } = place;
  const toS3 = `s3://${bucket.name}/${bucket.releasePrefix}`;
  const toGcs = `gs://${gcsBucket}/${bucket.releasePrefix}`;
  await finish(
    lockkeeper(ours, ["publish", folder, toS3, ...how, ...s3Flags(s3.endpoint)], s3Variables(bucket)),
  );
  await finish(lockkeeper(ours, ["publish", folder, toGcs, ...how, ...gcsFlags(gcs.endpoint)]));
  const atlas = findPart("atlas");
  if (atlas !== undefined) await finish({ program: atlas, args: ["hash", "--dir", place.folders.atlas] });
}

async function upload(
  { s3, gcs }: Printer,
  { folders, bucket, gcsBucket, hasPlainGcs }: Place,
  names: readonly string[],
): Promise<void> {
  const left = [...names];
  const worker = async (): Promise<void> => {
    for (let name = left.pop(); name !== undefined; name = left.pop()) {
      const bytes = await readFile(path.join(folders["golang-migrate"], name));
      await s3.put(`s3://${bucket.name}/${bucket.plainPrefix}`, name, bytes);
      if (hasPlainGcs) await gcs.put(`gs://${gcsBucket}/${bucket.plainPrefix}`, name, bytes);
    }
  };
  await Promise.all(Array.from({ length: uploads }, worker));
}
