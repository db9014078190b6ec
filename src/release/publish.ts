import { isDeepStrictEqual } from "node:util";

import { RunnerError } from "../error.ts";
import { formatDigest, sha256Hex } from "../migration/checksum.ts";
import { detectedFormat, type ChooseFormat } from "../migration/format/choose-format.ts";
import type { Engine } from "../migration/migration.ts";
import type { Source } from "../source/source.ts";
import { composeRelease, toManifest } from "./compose.ts";
import type { Composition } from "./compose.ts";
import { readEarlier, signedByOneOf } from "./earlier.ts";
import type { EarlierRelease } from "./earlier.ts";
import { knownSigners } from "./environment-trust.ts";
import type { EnvironmentTrusts } from "./environment-trust.ts";
import { describeIssued, epochOf, isCurrent, issue, nextRank, nextStatement, readTerms } from "./issue.ts";
import type { IssuedRelease, IssueOutcome, Terms } from "./issue.ts";
import { layout } from "./layout.ts";
import { writeManifest } from "./manifest.ts";
import type { Release } from "./release.ts";
import { writeStatement } from "./statement.ts";
import { contentOf, uploadContents } from "./upload.ts";

/** What to publish, where to, and in whose name. */
export interface PublishOptions extends Terms {
  /** plain migration files */
  readonly folder: Source;
  readonly engine: Engine;
  /** default: what the files look like */
  readonly format?: ChooseFormat;
  /** digest of the release to continue, where it is not the newest; only with a higher epoch */
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
 * @throws RunnerError `USAGE` — a lower epoch, `follow` without a higher one, no environment; `VALIDITY` — longer than `trust` allows
 */
export async function publishRelease(options: PublishOptions, signal: AbortSignal): Promise<PublishResult> {
  const { destination, keys } = options;
  const trusts = await readTerms(options, signal);
  const own = keys.map((key) => key.public);
  const judge = signedByOneOf(knownSigners(trusts, own));
  const earlier = await readEarlier(destination, { ...options, judge }, signal);
  if (options.follow === undefined) assertMayContinue(earlier, trusts);
  const composing = { ...options, format: options.format ?? detectedFormat(options) };
  const composition = await composeRelease(composing, earlier?.release, signal);
  const unchecked = await checkRegistry(composition, options.otherServices ?? [], signal);
  for (const message of [...composition.warnings, ...unchecked]) options.emit({ kind: "warning", message });
  options.emit({
    kind: "folder.read",
    migrations: composition.migrations.length,
    added: composition.added.length,
  });
  const epoch = epochOf(options, trusts);
  if (earlier !== undefined && isCurrent(earlier, options, epoch) && isSame(composition, earlier.release)) {
    const { statement } = earlier;
    const same = describeIssued(statement, statement.digest, statement.signers);
    return { ...same, ...nothingWritten, outcome: "unchanged", added: [] };
  }
  const { pack, bytes: packBytes } = await composition.pack(signal);
  const manifest = writeManifest(toManifest(composing, composition, pack));
  const content = {
    manifestSha256: sha256Hex(manifest),
    manifestSize: manifest.length,
    chain: { length: composition.migrations.length, head: composition.head },
    ...(options.gitSource && { source: options.gitSource }),
  };
  const statement = nextStatement(options, content, nextRank(epoch, earlier), options.now);
  const digest = formatDigest(sha256Hex(writeStatement(statement)));
  const signers = own.map(({ id }) => id);
  const result = { ...describeIssued(statement, digest, signers), added: composition.added };
  if (options.dryRun === true) return { ...result, ...nothingWritten, outcome: "dry-run" };
  const contents = [
    ...composition.bodies.map(({ sha256, size, bytes }) => ({ key: layout.blob(sha256), size, bytes })),
    ...(pack && packBytes ? [contentOf(layout.pack(pack.sha256), packBytes)] : []),
    contentOf(layout.manifest(statement.manifestSha256), manifest),
  ];
  const onDone = (done: number): void => options.emit({ kind: "object.done", done, total: contents.length });
  const counts = await uploadContents(destination, contents, onDone, signal);
  const published = await issue(statement, options, trusts, earlier?.headVersion, signal);
  return { ...result, ...counts, outcome: published ? "published" : "unsigned", published };
}

const nothingWritten = { published: false, uploaded: 0, present: 0, bytes: 0 } as const;

/** After a key was stolen the newest release may be the thief's: a person says which one is continued. */
function assertMayContinue(earlier: EarlierRelease | undefined, trusts: EnvironmentTrusts): void {
  if (earlier === undefined) return;
  const { digest, epoch, version } = earlier.statement;
  for (const trust of trusts.values()) {
    const isRevoked = trust.revoked.has(digest);
    if (!isRevoked && (trust.epoch === null || trust.epoch <= epoch)) continue;
    const why = isRevoked ? "was revoked" : `is of epoch ${epoch}, and the trust takes epoch ${trust.epoch}`;
    throw new RunnerError(isRevoked ? "RELEASE_REVOKED" : "WRONG_EPOCH", `the newest release ${why}`, {
      hint: "name the last good release with --follow; see what it holds with lockkeeper release show --release",
      fields: { digest, epoch, version },
    });
  }
}

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
