import type { ClientSession } from "mongodb";

import type { RootFile } from "../../release/trust/anchor.ts";
import { answerMs, type MongoDatabase } from "./database.ts";
import { withSession } from "./history.ts";

const limit = { maxTimeMS: answerMs } as const;

/** Roots that a stream was begun under, oldest first. */
export async function readRoots(
  { collections }: MongoDatabase,
  stream: string,
): Promise<readonly RootFile[]> {
  const found = await collections.roots.find({ stream }, limit).sort({ version: 1 }).toArray();
  return found.map(({ version, document, bundles }) => ({ version, document, bundles }));
}

/** Remembers roots that were proven just now; what an earlier run has remembered of the same version gives way. */
export async function rememberRoots(
  { collections }: MongoDatabase,
  stream: string,
  files: readonly RootFile[],
  session: ClientSession | undefined,
): Promise<void> {
  for (const { version, document, bundles } of files)
    await collections.roots.updateOne(
      { _id: `${stream}/${version}` },
      { $set: { stream, version, document, bundles } },
      { upsert: true, ...limit, ...withSession(session) },
    );
}

/** Forgets all of a stream's roots. */
export async function forgetRoots({ collections }: MongoDatabase, stream: string): Promise<void> {
  await collections.roots.deleteMany({ stream }, limit);
}
