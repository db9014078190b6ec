import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { Source } from "../../source/source.ts";
import { assertRootKnown } from "../trust/anchor.ts";
import type { KnownRoots, RootFile } from "../trust/anchor.ts";
import { readEnvelopes } from "../envelope.ts";
import type { Envelope } from "../envelope.ts";
import { layout } from "../layout.ts";
import { releaseLimits } from "../limits.ts";
import { readRoot } from "./root.ts";
import type { Root, RootRole } from "./root.ts";
import { readRootStatement } from "./root-statement.ts";
import { onlyKeys, signersOf } from "../trust/signers.ts";

/** The roots from a pinned one to the newest, each proven by the one before. */
export interface RootWalk {
  /** oldest first; the first is the pinned one */
  readonly roots: readonly [Root, ...Root[]];
  readonly newest: Root;
  /** of all but the pinned one */
  readonly files: readonly RootFile[];
}

/** A root document and its signatures, byte for byte as they were found. */
export interface RootBytes {
  readonly document: Buffer;
  readonly bundles: Buffer;
}

/**
 * Step 2 of trust.md 2.5 without its end: from the pinned root, by what the database remembers and then by what the bucket
 * has, until there is no next one. A missing root ends the walk; one that cannot be proven is an error, not an end.
 *
 * Where nothing is new it costs one request.
 *
 * @throws RunnerError `ROOT_VERSION` — too many steps; the codes of {@link verifyNextRoot}; `SOURCE_…`
 */
export async function walkRoots(
  pinned: Root,
  { source, known }: { readonly source: Source; readonly known: KnownRoots },
  signal: AbortSignal,
): Promise<RootWalk> {
  const remembered = await rememberedAfter(pinned, known);
  const roots: [Root, ...Root[]] = [pinned];
  const files: RootFile[] = [];
  let newest = pinned;
  for (;;) {
    const version = newest.version + 1;
    const bytes = remembered.get(version) ?? (await readRootBytes(source, version, signal));
    if (bytes === undefined) return { roots, newest, files };
    if (files.length === releaseLimits.rootSteps) throw tooManySteps(pinned);
    newest = verifyNextRoot(newest, bytes);
    roots.push(newest);
    files.push({ version, document: bytes.document.toString(), bundles: bytes.bundles.toString() });
  }
}

/**
 * A root that follows `previous`: signed by a threshold of its keys and of its own, with the very next version. No I/O.
 *
 * @throws RunnerError `ROOT_THRESHOLD`, `ROOT_VERSION`, `ROOT_INVALID` and the codes of an envelope, a statement and a root
 */
export function verifyNextRoot(previous: Root, { document, bundles }: RootBytes): Root {
  const what = `root ${previous.version + 1}`;
  const envelopes = readEnvelopes(bundles, `the signatures of ${what}`);
  assertThreshold(envelopes, previous.signers, `${what} has`, `root ${previous.version}`);
  // parsed only after it was signed by somebody who may sign it
  const payload = envelopes[0]?.payload ?? Buffer.alloc(0);
  const statement = readRootStatement(payload);
  if (sha256Hex(document) !== statement.sha256) {
    throw new RunnerError("ROOT_INVALID", `${what} is not the document that was signed`, {
      hint: "restore the object, or publish the root again",
      fields: { expected: `sha256:${statement.sha256}`, actual: `sha256:${sha256Hex(document)}` },
    });
  }
  const root = readRoot(document, what);
  assertThreshold(envelopes, root.signers, `${what} has`, "that root itself");
  if (root.version !== previous.version + 1 || statement.version !== root.version) {
    throw new RunnerError(
      "ROOT_VERSION",
      `version ${root.version} of the root stands in the place of version ${previous.version + 1}`,
      {
        hint: "roots follow each other without gaps: publish the one that is missing",
        fields: { expected: previous.version + 1, actual: root.version },
      },
    );
  }
  if (root.org !== previous.org || statement.org !== root.org) {
    throw new RunnerError(
      "ROOT_INVALID",
      `${what} is of "${root.org}", and the one before of "${previous.org}"`,
    );
  }
  return root;
}

/**
 * What is asked of the newest root only: that it is in time, and not older than one that was in use or is demanded.
 *
 * @throws RunnerError `ROOT_EXPIRED`, `ROOT_ROLLBACK`
 */
export function assertCurrent(
  { version, expires }: Root,
  {
    now,
    known,
    minRootVersion,
  }: { readonly now: Date; readonly known: number | null; readonly minRootVersion: number },
): void {
  if (now >= expires) {
    throw new RunnerError("ROOT_EXPIRED", `root ${version} expired at ${expires.toISOString()}`, {
      hint: "publish the next one: lockkeeper root next, root sign, root publish",
      fields: { version, expires: expires.toISOString() },
    });
  }
  assertRootKnown({ version }, known);
  if (version < minRootVersion) {
    throw new RunnerError(
      "ROOT_ROLLBACK",
      `root ${version} is older than root ${minRootVersion}, which is demanded`,
      {
        hint: "publish it, or find out who withholds it; minRootVersion of the trust demands it",
        fields: { version, minRootVersion },
      },
    );
  }
}

/**
 * One version of the root as a bucket has it; undefined where its document is absent.
 *
 * @throws RunnerError `ROOT_THRESHOLD` — it is there without signatures; `TOO_LARGE`, `SOURCE_…`
 */
export async function readRootBytes(
  source: Source,
  version: number,
  signal: AbortSignal,
): Promise<RootBytes | undefined> {
  const maxBytes = releaseLimits.rootBytes;
  const document = await source.read(layout.root(version), { maxBytes }, signal);
  if (document === undefined) return undefined;
  // read after the document, which is written last: whoever sees it sees them
  const bundles = await source.read(
    layout.rootBundles(version),
    { maxBytes: releaseLimits.releaseBytes },
    signal,
  );
  if (bundles !== undefined) return { document: document.bytes, bundles: bundles.bytes };
  throw new RunnerError("ROOT_THRESHOLD", `root ${version} is under ${source.url} without its signatures`, {
    hint: "restore the object, or publish the root again",
  });
}

/** Asked of the database only where it knows more than what is pinned. */
async function rememberedAfter(pinned: Root, known: KnownRoots): Promise<ReadonlyMap<number, RootBytes>> {
  if (known.version === null || known.version <= pinned.version) return new Map();
  const files = await known.files();
  return new Map(
    files.map(({ version, document, bundles }) => [
      version,
      { document: Buffer.from(document), bundles: Buffer.from(bundles) },
    ]),
  );
}

function assertThreshold(
  envelopes: readonly Envelope[],
  { keys, threshold }: RootRole,
  what: string,
  whose: string,
): void {
  const counted = signersOf(envelopes, onlyKeys(keys)).length;
  if (counted >= threshold) return;
  throw new RunnerError(
    "ROOT_THRESHOLD",
    `${what} ${counted} of the ${threshold} signatures that are needed by the keys of ${whose}`,
    {
      hint: "let more root key holders sign it: lockkeeper root sign",
      fields: { counted, threshold, lines: envelopes.length },
    },
  );
}

function tooManySteps({ version }: Root): RunnerError {
  return new RunnerError(
    "ROOT_VERSION",
    `more than ${releaseLimits.rootSteps} roots follow the pinned one, version ${version}`,
    { hint: "pin a newer root in the deployment" },
  );
}
