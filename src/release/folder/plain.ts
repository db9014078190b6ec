import { RunnerError } from "../../error.ts";
import { analyzeBody, type BodyFacts } from "../../migration/analyze-body.ts";
import { detectedFormat, type ChooseFormat } from "../../migration/format/choose-format.ts";
import type { Body, Engine } from "../../migration/migration.ts";
import { compareVersions } from "../../migration/version.ts";
import { sourceLimits } from "../../source/source.ts";
import type { Source } from "../../source/source.ts";
import { assertRunBytes } from "../body.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import { emptyChain } from "../chain.ts";
import { linkPlaces } from "./link-places.ts";
import { mapConcurrently } from "../concurrent.ts";
import { readFolder } from "./folder.ts";
import type { BodyRead, FolderBody, FolderMigration } from "./folder-body.ts";
import type { AppliedMigration, Release, ReleaseContext, ReleaseProvider } from "../release.ts";
import { continueSequence, findVersion, sortByVersion } from "./sequence.ts";
import type { Place } from "./sequence.ts";

/** A folder, and how its files are taken. */
export interface PlainOptions {
  readonly source: Source;
  readonly stream: string;
  readonly environment: string;
  readonly engine: Engine;
  /** default: what the files look like */
  readonly format?: ChooseFormat;
  /** take a version lower than the highest applied one, at the end of the sequence */
  readonly allowLate: boolean;
  /** `up`: for a run that cannot go down; leaves down files unread, half the requests. Default `both` */
  readonly directions?: "up" | "both";
}

/**
 * A plain folder of migration files as a release. Nobody signed it: every body is read, and what the database says
 * was applied must still be there unchanged. Only for `--unsigned`.
 */
export function plainReleases(options: PlainOptions): ReleaseProvider {
  const folders = new WeakMap<Release, PlainFiles>();
  return {
    kind: "plain",
    stream: options.stream,
    url: options.source.url,
    // what a folder holds is known only by reading all of it
    head: () => Promise.resolve(undefined),
    async fetch(context, signal) {
      assertUnsignedAllowed(options.environment, context);
      const { release, files } = await fetchPlain(options, context, signal);
      folders.set(release, files);
      return release;
    },
    async bodies(release, bodies, signal) {
      const files = folders.get(release);
      if (files === undefined)
        throw new RunnerError("INTERNAL", "bodies were asked of a release that was not fetched here");
      assertRunBytes(bodies);
      const read = await mapConcurrently(bodies, sourceLimits.concurrency, signal, (body, stop) =>
        readBody(body, files, stop),
      );
      return new Map(read);
    },
  };
}

/** Files by the checksum of their bytes: equal bytes are one body, whatever the file is called. */
type PlainFiles = ReadonlyMap<string, FolderBody<Analysis>>;

/** What a look into a body said; a failure is kept until somebody wants to run that very body. */
type Analysis = BodyFacts | RunnerError | undefined;

/** Once signed, always signed; and never where a mistake costs most (design.md 6). */
function assertUnsignedAllowed(environment: string, context: ReleaseContext): void {
  if (environment === "production") {
    throw new RunnerError(
      "UNSIGNED_REFUSED",
      'unsigned files are not taken for the environment "production"',
      {
        hint: "publish a signed release and name its key with --trust",
      },
    );
  }
  if (context.highWaterMark !== undefined) {
    throw new RunnerError(
      "UNSIGNED_REFUSED",
      "a signed release was begun on this database, so only signed ones are taken",
      {
        hint: "publish these files as a release and name its key with --trust",
      },
    );
  }
}

async function fetchPlain(
  options: PlainOptions,
  context: ReleaseContext,
  signal: AbortSignal,
): Promise<{ readonly release: Release; readonly files: PlainFiles }> {
  const applied = await context.applied();
  const byVersion = sortByVersion(applied);
  const isForUpOnly = options.directions === "up";
  const learn = async (body: BodyRead): Promise<{ keep: boolean; learned: Analysis }> => {
    const isPending = body.version === undefined || findVersion(byVersion, body.version) === undefined;
    const keep = isPending ? body.direction === "up" : body.direction === "down";
    return { keep, learned: isPending || !isForUpOnly ? await analyze(body, options.engine) : undefined };
  };
  const folder = await readFolder(
    options.source,
    { format: options.format ?? detectedFormat(options), withDown: !isForUpOnly, learn },
    signal,
  );
  const settled = applied.map((migration) => withoutCheckpoint(migration, folder.migrations));
  const places = continueSequence(settled, folder.migrations, {
    allowLate: options.allowLate,
    settledBy: "database",
  });
  // what may run now must be fit to run; anything else is told when it is asked for
  for (const { found, settled } of places) {
    if (settled === undefined && found.up.learned instanceof RunnerError) throw found.up.learned;
  }
  for (const { learned } of folder.repeatable) if (learned instanceof RunnerError) throw learned;
  const migrations = linkPlaces(options.stream, places, toBody);
  const release: Release = {
    kind: "plain",
    stream: options.stream,
    engine: options.engine,
    digest: plainDigest(migrations.at(-1)?.chain ?? emptyChain(options.stream), folder.repeatable),
    migrations,
    repeatable: folder.repeatable.map(toBody),
    ...(folder.registry && { registry: folder.registry }),
    signers: [],
    warnings: [...folder.warnings, ...places.flatMap(warnOfNewLabel)],
  };
  assertExpected(release, context.expected);
  const files = [
    ...folder.migrations.flatMap(({ up, down, checkpoint }) => [up, down, checkpoint]),
    ...folder.repeatable,
  ].filter((file) => file !== undefined);
  return { release, files: new Map(files.map((file) => [file.sha256, file])) };
}

/** What came by a checkpoint, as if it had come by itself: the checkpoint may be gone, and its chain tells whether it has changed. */
function withoutCheckpoint(
  applied: AppliedMigration,
  migrations: readonly FolderMigration<Analysis>[],
): AppliedMigration {
  if (applied.origin !== "checkpoint") return applied;
  const found = migrations.find(({ version }) => compareVersions(version, applied.version) === 0);
  return found === undefined ? applied : { ...applied, path: found.path, sha256: found.sha256 };
}

/** What the chain does not bind is bound here, where there is any. */
function plainDigest(chain: string, repeatable: readonly FolderBody<Analysis>[]): string {
  if (repeatable.length === 0) return `plain:${chain}`;
  const lines = repeatable.map(({ path, sha256 }) => `${path} ${sha256}\n`);
  return `plain:${sha256Hex(`${chain}\n${lines.join("")}`)}`;
}

function toBody({ path, sha256, size, crc32, learned }: FolderBody<Analysis>): Body {
  const facts = learned === undefined || learned instanceof RunnerError ? unknownFacts : learned;
  return { path, sha256, size, ...facts, ...(crc32 !== undefined && { crc32 }) };
}

const unknownFacts: BodyFacts = { tx: "one", alone: false, locks: [] };

async function analyze(body: BodyRead, engine: Engine): Promise<BodyFacts | RunnerError> {
  try {
    return await analyzeBody(body, { engine, isSigned: false });
  } catch (error) {
    if (error instanceof RunnerError) return error;
    throw error;
  }
}

async function readBody(
  body: Body,
  files: PlainFiles,
  signal: AbortSignal,
): Promise<readonly [string, Buffer]> {
  const file = files.get(body.sha256);
  if (file === undefined) throw new RunnerError("INTERNAL", `"${body.path}" is not of this folder`);
  if (file.learned instanceof RunnerError) throw file.learned;
  return [body.sha256, await file.read(signal)];
}

function assertExpected(release: Release, expected: string | undefined): void {
  if (expected === undefined || expected === release.digest) return;
  throw new RunnerError("UNEXPECTED_RELEASE", "the folder is not the release that was asked for", {
    hint: "make a new plan from the folder as it is now",
    fields: { expected, actual: release.digest },
  });
}

function warnOfNewLabel({
  found,
  settled,
}: Place<AppliedMigration, FolderMigration<Analysis>>): readonly string[] {
  if (settled === undefined || settled.path === found.path) return [];
  return [`"${found.path}" was applied under the name "${settled.path}" and keeps it`];
}
