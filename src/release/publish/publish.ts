import { isDeepStrictEqual } from "node:util";

import { formatDigest, sha256Hex } from "../../migration/checksum.ts";
import { detectedFormat, type ChooseFormat } from "../../migration/format/choose-format.ts";
import type { Engine } from "../../migration/migration.ts";
import type { Source } from "../../source/source.ts";
import { composeRelease, toManifest } from "./compose.ts";
import type { Composition } from "./compose.ts";
import { signedByOneOf } from "./earlier.ts";
import { readEnvelopes } from "../envelope.ts";
import { isMet, knownSigners } from "../trust/environment-trust.ts";
import { describeIssued, epochOf, isCurrent, issue, nextRank, nextStatement, readTerms } from "./issue.ts";
import type { IssuedRelease, IssueOutcome, Terms } from "./issue.ts";
import { layout } from "../layout.ts";
import { writeManifest } from "../manifest.ts";
import { readPredecessor } from "./predecessor.ts";
import type { Release } from "../release.ts";
import { writeStatement } from "../statement.ts";
import { contentOf, uploadContents } from "./upload.ts";

/** What to publish, where to, and in whose name. */
export interface PublishOptions extends Terms {
  /** plain migration files */
  readonly folder: Source;
  readonly engine: Engine;
  /** default: what the files look like */
  readonly format?: ChooseFormat;
  /** digest of the release to continue in place of the newest, whose further migrations are left out; `none`: all of them */
  readonly follow?: string | undefined;
  readonly allowLate: boolean;
  /** prefixes of other services' releases, to look for cycles with the folder's registry */
  readonly otherServices?: readonly Source[] | undefined;
  /** where the files come from, for people */
  readonly gitSource?: { readonly uri: string; readonly gitCommit: string } | undefined;
  /** everything but the writing */
  readonly dryRun?: boolean | undefined;
  emit(event: PublishEvent): void;
}

/** What a publication says while it goes on. A listener must not throw and is not waited for. */
export type PublishEvent =
  | { readonly kind: "folder.read"; readonly migrations: number; readonly added: number }
  | { readonly kind: "object.done"; readonly done: number; readonly total: number }
  | { readonly kind: "warning"; readonly message: string };

/** What a publication came to: the new release, or the newest one where nothing changed. */
export interface PublishResult extends IssuedRelease {
  readonly outcome: IssueOutcome;
  /** whether the head moved */
  readonly published: boolean;
  /** exact bytes of what is signed; null where nothing changed */
  readonly statement: Buffer | null;
  /** labels of the migrations that the release before does not have */
  readonly added: readonly string[];
  /** objects written, and objects that were there already */
  readonly uploaded: number;
  readonly present: number;
  /** bytes written */
  readonly bytes: number;
}

/**
 * Turns a plain folder into the next signed release of its stream.
 *
 * Bodies, pack, manifest and release are created under names of their own digests; then the head is moved to them,
 * in one step and only from the state that was read. Before that nobody sees anything, and a run that was cut off
 * is simply run again.
 *
 * @throws RunnerError `SOURCE_CONFLICT` — another publisher was faster; `WRONG_STREAM`, `THRESHOLD` — see `readEarlier`
 * @throws RunnerError `OUT_OF_ORDER`, `CHANGED_FILE`, `HISTORY_REWRITTEN` and the codes of the folder, see `composeRelease`
 * @throws RunnerError `RELEASE_REVOKED`, `WRONG_EPOCH` — the trust has done with the newest release: `follow` names the last good one
 * @throws RunnerError `DEPENDENCY_CYCLE` — see `checkOtherServices`
 * @throws RunnerError `USAGE` — a lower epoch, none above that of a newest release that nobody known signed, no environment; `VALIDITY` — longer than `trust` allows
 */
export async function publishRelease(options: PublishOptions, signal: AbortSignal): Promise<PublishResult> {
  const { destination, keys } = options;
  const trusts = await readTerms(options, signal);
  const own = keys.map((key) => key.public);
  const judge = signedByOneOf(knownSigners(trusts, own));
  const isAnew = options.follow === "none";
  const follow = isAnew ? undefined : options.follow;
  const before = await readPredecessor(destination, { ...options, follow, judge }, trusts, signal);
  // the trust may have got other signers since, or want more of them: then it is continued all the same, but not believed
  const believesBefore =
    isAnew || before === undefined || isMet(readEnvelopes(before.continued.bytes), trusts);
  const composing = { ...options, format: options.format ?? detectedFormat(options), believesBefore };
  const composition = await composeRelease(composing, isAnew ? undefined : before?.continued.release, signal);
  const unchecked = await checkRegistry(composition, options.otherServices ?? [], signal);
  const newest = before?.newest;
  const leftOut = leavesOut(composition, newest?.release);
  const unbelieved = believesBefore ? [] : [continuesUnbelieved(before?.continued.statement.digest ?? "")];
  for (const message of [...composition.warnings, ...unchecked, ...leftOut, ...unbelieved])
    options.emit({ kind: "warning", message });
  options.emit({
    kind: "folder.read",
    migrations: composition.migrations.length,
    added: composition.added.length,
  });
  const epoch = epochOf(options, trusts);
  // one whose signers do not suffice any more says something new once others have signed it
  const isTrusted = newest !== undefined && isMet(readEnvelopes(newest.bytes), trusts);
  if (isTrusted && isCurrent(newest, options, epoch) && isSame(composition, newest.release)) {
    const { statement } = newest;
    const same = describeIssued(statement, statement.digest, statement.signers);
    return { ...same, ...nothingWritten, outcome: "unchanged", statement: null, added: [] };
  }
  const { pack, bytes: packBytes } = await composition.pack(signal);
  const manifest = writeManifest(toManifest(composing, composition, pack));
  const content = {
    manifestSha256: sha256Hex(manifest),
    manifestSize: manifest.length,
    chain: { length: composition.migrations.length, head: composition.head },
    ...(options.gitSource && { source: options.gitSource }),
  };
  const statement = nextStatement(
    options,
    content,
    nextRank(epoch, newest ?? before?.continued),
    options.now,
  );
  const payload = writeStatement(statement);
  const digest = formatDigest(sha256Hex(payload));
  const signers = own.map(({ id }) => id);
  const issued = describeIssued(statement, digest, signers);
  const result = { ...issued, statement: payload, added: composition.added };
  if (options.dryRun === true) return { ...result, ...nothingWritten, outcome: "dry-run" };
  const contents = [
    ...composition.bodies.map(({ sha256, size, bytes }) => ({ key: layout.blob(sha256), size, bytes })),
    ...(pack && packBytes ? [contentOf(layout.pack(pack.sha256), packBytes)] : []),
    contentOf(layout.manifest(statement.manifestSha256), manifest),
  ];
  const onDone = (done: number): void => options.emit({ kind: "object.done", done, total: contents.length });
  const counts = await uploadContents(destination, contents, onDone, signal);
  const published = await issue(statement, options, trusts, before?.continued.headVersion, signal);
  return { ...result, ...counts, outcome: published ? "published" : "unsigned", published };
}

const nothingWritten = { published: false, uploaded: 0, present: 0, bytes: 0 } as const;

async function checkRegistry(
  { registry, migrations }: Composition,
  sources: readonly Source[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  if (registry === undefined) return [];
  const { checkOtherServices } = await import("./other-services.ts");
  const versions = migrations.map(({ version }) => version);
  return checkOtherServices({ registry, versions }, sources, signal);
}

/** What a person should hear of, who meant to take a migration back that some database may have. */
function leavesOut(
  { migrations }: Composition,
  newest: Pick<Release, "migrations"> | undefined,
): readonly string[] {
  const gone = (newest?.migrations ?? []).filter(({ chain }, index) => migrations[index]?.chain !== chain);
  return gone.map(
    ({ path }) =>
      `"${path}" of the newest release is left out or replaced: a database that has applied it will refuse this release`,
  );
}

/** Its order is what every database of ours has, or what a thief would like them to have. */
function continuesUnbelieved(digest: string): string {
  return `the release before, ${digest}, has not the signatures that the trust wants now: only the order of its migrations is kept, which lockkeeper release show tells`;
}

function isSame(
  { migrations, repeatable, registry }: Composition,
  release: Pick<Release, "migrations" | "repeatable" | "registry">,
): boolean {
  return (
    isDeepStrictEqual(migrations, release.migrations) &&
    isDeepStrictEqual(repeatable, release.repeatable) &&
    isDeepStrictEqual(registry, release.registry)
  );
}
