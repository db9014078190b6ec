import { isDeepStrictEqual } from "node:util";

import { RunnerError } from "../error.ts";
import { formatDigest, sha256Hex } from "../migration/checksum.ts";
import { detectedFormat, type ChooseFormat } from "../migration/format/choose-format.ts";
import type { Engine } from "../migration/migration.ts";
import type { Source, WritableSource } from "../source/source.ts";
import { composeRelease, toManifest } from "./compose.ts";
import type { Composition } from "./compose.ts";
import { readEarlier } from "./earlier.ts";
import type { EarlierRelease } from "./earlier.ts";
import { signEnvelope } from "./envelope.ts";
import type { PublicKey, Signer } from "./key.ts";
import { layout } from "./layout.ts";
import { writeManifest } from "./manifest.ts";
import { writeStatement } from "./statement.ts";
import type { ReleaseStatement } from "./statement.ts";
import { ruleFor } from "./trust.ts";
import type { Trust } from "./trust.ts";
import { contentOf, moveHead, uploadBundles, uploadContents } from "./upload.ts";
import { check, nameText } from "./schema.ts";

/** What to publish, where to, and in whose name. */
export interface PublishOptions {
  /** plain migration files */
  readonly folder: Source;
  /** prefix of one stream */
  readonly destination: WritableSource;
  readonly stream: string;
  readonly engine: Engine;
  /** default: what the files look like */
  readonly format?: ChooseFormat;
  readonly environments: readonly string[];
  readonly expiresInDays: number;
  /** raised after a stolen key has published; versions begin again at 1. Default: the head's */
  readonly epoch?: number | undefined;
  /** digest of the release to continue, where it is not the newest; only with a higher epoch */
  readonly follow?: string | undefined;
  /** each signs; at least one */
  readonly keys: readonly [Signer, ...Signer[]];
  /** what runners will ask for: the head moves only when `keys` meet it. Also names the signers of earlier releases */
  readonly trust?: Trust | undefined;
  readonly allowLate: boolean;
  readonly now: Date;
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

/**
 * `published`: the head names the release; `unchanged`: the newest release is just this, and nothing was written;
 * `unsigned`: written, but the head waits for more signatures; `dry-run`: nothing was written.
 */
export type PublishOutcome = "published" | "unchanged" | "unsigned" | "dry-run";

/** What a publication came to. */
export interface PublishResult {
  readonly outcome: PublishOutcome;
  /** whether the head moved */
  readonly published: boolean;
  /** of the new release; of the newest one where nothing changed */
  readonly digest: string;
  readonly epoch: number;
  readonly version: number;
  readonly environments: readonly string[];
  readonly expires: Date;
  readonly signers: readonly string[];
  /** migrations in the release */
  readonly migrations: number;
  /** labels of those that the release before does not have */
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
 * @throws RunnerError `DEPENDENCY_CYCLE` — see `checkOtherServices`
 * @throws RunnerError `USAGE` — a lower epoch, `follow` without a higher one, no environment; `VALIDITY` — longer than `trust` allows
 */
export async function publishRelease(options: PublishOptions, signal: AbortSignal): Promise<PublishResult> {
  assertOptions(options);
  const earlier = await readEarlier(options.destination, { ...options, keys: earlierKeys(options) }, signal);
  const composing = { ...options, format: options.format ?? detectedFormat(options) };
  const composition = await composeRelease(composing, earlier?.release, signal);
  const unchecked = await checkRegistry(composition, options.otherServices ?? [], signal);
  for (const message of [...composition.warnings, ...unchecked]) options.emit({ kind: "warning", message });
  options.emit({
    kind: "folder.read",
    migrations: composition.migrations.length,
    added: composition.added.length,
  });
  if (earlier !== undefined && isSame(options, composition, earlier)) return unchanged(earlier);
  const { pack, bytes: packBytes } = await composition.pack(signal);
  const manifest = writeManifest(toManifest(composing, composition, pack));
  const statement = nextStatement(options, composition, manifest, earlier);
  const payload = writeStatement(statement);
  const result = { ...describe(statement, options, composition), digest: formatDigest(sha256Hex(payload)) };
  if (options.dryRun === true)
    return { ...result, outcome: "dry-run", published: false, uploaded: 0, present: 0, bytes: 0 };
  const contents = [
    ...composition.bodies.map(({ sha256, size, bytes }) => ({ key: layout.blob(sha256), size, bytes })),
    ...(pack && packBytes ? [contentOf(layout.pack(pack.sha256), packBytes)] : []),
    contentOf(layout.manifest(statement.manifestSha256), manifest),
  ];
  const onDone = (done: number): void => options.emit({ kind: "object.done", done, total: contents.length });
  const counts = await uploadContents(options.destination, contents, onDone, signal);
  const lines = await Promise.all(options.keys.map((key) => signEnvelope(payload, key, signal)));
  await uploadBundles(options.destination, sha256Hex(payload), lines, signal);
  if (!isThresholdMet(options)) return { ...result, ...counts, outcome: "unsigned", published: false };
  const head = { epoch: statement.epoch, version: statement.version, digest: result.digest };
  await moveHead(options.destination, head, earlier?.headVersion, signal);
  return { ...result, ...counts, outcome: "published", published: true };
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

const dayMs = 86_400_000;

function assertOptions({ stream, environments, expiresInDays, trust }: PublishOptions): void {
  for (const name of [stream, ...environments])
    check(nameText, name, `the name ${JSON.stringify(name)}`, "USAGE");
  if (environments.length === 0) throw new RunnerError("USAGE", "a release needs at least one environment");
  for (const environment of environments) {
    const most = trust === undefined ? Infinity : ruleFor(trust, environment).maxValidityDays;
    if (expiresInDays > 0 && expiresInDays <= most) continue;
    throw new RunnerError(
      "VALIDITY",
      `a release for "${environment}" may be valid for up to ${most} days, not ${expiresInDays}`,
      {
        hint: "choose another --expires",
        fields: { environment, days: expiresInDays },
      },
    );
  }
}

/** Whoever signs now may have signed before; anybody else's key must be named. */
function earlierKeys({ keys, trust }: PublishOptions): readonly PublicKey[] {
  const all = [...keys.map((key) => key.public), ...(trust?.keys ?? [])];
  return [...new Map(all.map((key) => [key.id, key])).values()];
}

/**
 * Whether a new release would say nothing new. One that has lost half of its time, or lacks one of our signatures,
 * is made anew, so that a pipeline that always publishes never lets a release expire.
 */
function isSame(
  options: PublishOptions,
  { migrations, repeatable, registry }: Composition,
  { head, statement, release }: EarlierRelease,
): boolean {
  const validityLeftMs = statement.expires.getTime() - options.now.getTime();
  return (
    head.digest === statement.digest &&
    validityLeftMs >= (options.expiresInDays * dayMs) / 2 &&
    (options.epoch ?? statement.epoch) === statement.epoch &&
    options.keys.every((key) => statement.signers.includes(key.public.id)) &&
    isDeepStrictEqual(options.environments.toSorted(), statement.environments.toSorted()) &&
    isDeepStrictEqual(migrations, release.migrations) &&
    isDeepStrictEqual(repeatable, release.repeatable) &&
    isDeepStrictEqual(registry, release.registry)
  );
}

function nextStatement(
  options: PublishOptions,
  { migrations, head }: Composition,
  manifest: Buffer,
  earlier: EarlierRelease | undefined,
): ReleaseStatement {
  const issued = new Date(Math.floor(options.now.getTime() / 1000) * 1000);
  return {
    stream: options.stream,
    ...nextRank(options.epoch, earlier),
    manifestSha256: sha256Hex(manifest),
    manifestSize: manifest.length,
    chain: { length: migrations.length, head },
    environments: options.environments,
    issued,
    expires: new Date(issued.getTime() + options.expiresInDays * dayMs),
    ...(options.gitSource && { source: options.gitSource }),
  };
}

function nextRank(
  wanted: number | undefined,
  earlier: EarlierRelease | undefined,
): Pick<ReleaseStatement, "epoch" | "version" | "previous"> {
  if (earlier === undefined) return { epoch: wanted ?? 1, version: 1, previous: null };
  const { epoch, version, digest } = earlier.statement;
  if (wanted !== undefined && wanted < epoch) {
    throw new RunnerError("USAGE", `epoch ${wanted} is below the head's, ${epoch}`, {
      hint: "an epoch only grows",
    });
  }
  if (wanted !== undefined && wanted > epoch) return { epoch: wanted, version: 1, previous: null };
  if (earlier.head.digest !== digest) {
    throw new RunnerError(
      "USAGE",
      "a release that does not follow the newest one begins an epoch of its own",
      {
        hint: `publish with --epoch ${Math.max(epoch, earlier.head.epoch) + 1}`,
      },
    );
  }
  if (version === Number.MAX_SAFE_INTEGER) {
    throw new RunnerError("USAGE", "no version is left in this epoch", {
      hint: `publish with --epoch ${epoch + 1}`,
    });
  }
  return { epoch, version: version + 1, previous: digest };
}

function describe(statement: ReleaseStatement, { keys }: PublishOptions, { added }: Composition) {
  return {
    epoch: statement.epoch,
    version: statement.version,
    environments: statement.environments,
    expires: statement.expires,
    signers: keys.map((key) => key.public.id),
    migrations: statement.chain.length,
    added,
  };
}

function unchanged({ statement }: EarlierRelease): PublishResult {
  return {
    outcome: "unchanged",
    published: false,
    digest: statement.digest,
    epoch: statement.epoch,
    version: statement.version,
    environments: statement.environments,
    expires: statement.expires,
    signers: statement.signers,
    migrations: statement.chain.length,
    added: [],
    uploaded: 0,
    present: 0,
    bytes: 0,
  };
}

function isThresholdMet({ keys, trust, environments }: PublishOptions): boolean {
  if (trust === undefined) return true;
  const counted = new Set(
    keys.map((key) => key.public.id).filter((id) => trust.keys.some((key) => key.id === id)),
  ).size;
  return environments.every((environment) => counted >= ruleFor(trust, environment).threshold);
}
