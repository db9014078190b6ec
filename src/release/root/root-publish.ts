import { RunnerError } from "../../error.ts";
import type { WritableSource } from "../../source/source.ts";
import { noKnownRoots } from "../trust/anchor.ts";
import { readEnvelopes } from "../envelope.ts";
import { layout } from "../layout.ts";
import { releaseLimits } from "../limits.ts";
import { readRoot } from "./root.ts";
import type { Root } from "./root.ts";
import { readRootBytes, verifyNextRoot, walkRoots } from "./root-walk.ts";
import type { RootBytes } from "./root-walk.ts";

/** Which root to publish, where to, and what its runners pin. */
export interface PublishRootOptions {
  /** prefix of one stream */
  readonly destination: WritableSource;
  readonly pinned: Root;
  readonly file: RootBytes;
  readonly now: Date;
}

/** What became of it; `unchanged`: these very bytes are published already. */
export interface PublishedRoot {
  readonly root: Root;
  readonly outcome: "published" | "unchanged";
}

/**
 * Publishes the next root, after it was proven as a runner will prove it: from the pinned root by all that are published.
 * Creates objects and replaces none; the document is written last, so that a reader who sees it sees its signatures too.
 *
 * @throws RunnerError the codes of `walkRoots` and `verifyNextRoot`; `ROOT_VERSION` — another root has this version already; `ROOT_THRESHOLD` — nobody has signed it
 * @throws RunnerError `ROOT_EXPIRED` — every runner would refuse it; `SOURCE_CONFLICT` — somebody else publishes one too
 */
export async function publishRoot(
  { destination, pinned, file, now }: PublishRootOptions,
  signal: AbortSignal,
): Promise<PublishedRoot> {
  const { newest } = await walkRoots(pinned, { source: destination, known: noKnownRoots }, signal);
  const { version } = readRoot(file.document);
  if (version <= newest.version) return alreadyThere(destination, version, file, signal);
  if (file.bundles.length === 0) {
    throw new RunnerError("ROOT_THRESHOLD", `root ${version} is not signed`, {
      hint: "let a threshold of the root keys before it, and of its own, sign it: lockkeeper root sign",
    });
  }
  const root = verifyNextRoot(newest, file);
  if (now >= root.expires) {
    throw new RunnerError("ROOT_EXPIRED", `root ${version} expired at ${root.expires.toISOString()}`, {
      hint: "make one that expires later, and let it be signed",
    });
  }
  await writeBundles(destination, version, file.bundles, signal);
  const written = await destination.write(layout.root(version), file.document, { absent: true }, signal);
  if (written !== "conflict") return { root, outcome: "published" };
  return alreadyThere(destination, version, file, signal);
}

async function alreadyThere(
  destination: WritableSource,
  version: number,
  { document }: RootBytes,
  signal: AbortSignal,
): Promise<PublishedRoot> {
  const there = await readRootBytes(destination, version, signal);
  if (there?.document.equals(document)) return { root: readRoot(document), outcome: "unchanged" };
  throw new RunnerError(
    "ROOT_VERSION",
    there === undefined
      ? `root ${version} is not newer than the pinned one`
      : `another root ${version} is published under ${destination.url}`,
    {
      hint: "a root is never replaced: make the next one after the newest, lockkeeper root next",
      fields: { version },
    },
  );
}

/** Signatures without a document are of a publication that was cut off. They are replaced if they are for this document. */
async function writeBundles(
  destination: WritableSource,
  version: number,
  bundles: Buffer,
  signal: AbortSignal,
): Promise<void> {
  const key = layout.rootBundles(version);
  if ((await destination.write(key, bundles, { absent: true }, signal)) !== "conflict") return;
  const there = await destination.read(key, { maxBytes: releaseLimits.releaseBytes }, signal);
  if (there?.bytes.equals(bundles)) return;
  const isOurs = there !== undefined && payloadOf(there.bytes)?.equals(payloadOf(bundles) ?? Buffer.alloc(0));
  const written =
    isOurs === true && (await destination.write(key, bundles, { version: there.version }, signal));
  if (written !== false && written !== "conflict") return;
  throw new RunnerError("SOURCE_CONFLICT", `${key} under ${destination.url} signs another root`, {
    hint: "find out who publishes one, and remove the object if nobody does",
  });
}

function payloadOf(bundles: Buffer): Buffer | undefined {
  try {
    return readEnvelopes(bundles)[0]?.payload;
  } catch {
    return undefined;
  }
}
