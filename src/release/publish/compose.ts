import { RunnerError } from "../../error.ts";
import { analyzeBody, type BodyFacts } from "../../migration/analyze-body.ts";
import type { ChooseFormat } from "../../migration/format/choose-format.ts";
import type { Body, Engine, Migration } from "../../migration/migration.ts";
import type { Source } from "../../source/source.ts";
import { emptyChain } from "../chain.ts";
import { readFolder } from "../folder/folder.ts";
import type { BodyRead, FolderBody, FolderMigration } from "../folder/folder-body.ts";
import { bodiesOf } from "../release.ts";
import { makePack } from "../pack.ts";
import type { Manifest, Pack } from "../manifest.ts";
import type { Registry } from "../registry.ts";
import { continueSequence } from "../folder/sequence.ts";
import { linkPlaces } from "../folder/link-places.ts";
import type { Place } from "../folder/sequence.ts";
import type { VerifiedRelease } from "../verify.ts";

/**
 * What found the facts of a body, as the manifest tells it: our own rules' number, and the parser they ask.
 * Facts found by the same are taken over from a release before that is believed, others are found again.
 */
export const parserName = "lockkeeper 1, libpg-query 18.1.5";

/** Where a new release comes from. */
export interface ComposeOptions {
  readonly folder: Source;
  readonly stream: string;
  readonly engine: Engine;
  readonly format: ChooseFormat;
  readonly allowLate: boolean;
  /**
   * Whether runners would take the release before, so that what it says of bodies is believed. Else it is found again:
   * one signer alone could say of a file that only some of its statements are run, and have the others sign that.
   */
  readonly believesBefore: boolean;
}

/** What is continued. */
export type ReleaseBefore = Pick<VerifiedRelease, "migrations" | "repeatable" | "manifest">;

/** What a new release will hold. */
export interface Composition {
  readonly format: string;
  readonly migrations: readonly Migration[];
  readonly repeatable: readonly Body[];
  readonly registry: Registry | undefined;
  /** chain digest over all of them */
  readonly head: string;
  /** bodies that the release before does not hold, each once */
  readonly bodies: readonly NewBody[];
  /** labels of the migrations, and of the repeatable ones, that it does not hold as they are */
  readonly added: readonly string[];
  readonly warnings: readonly string[];
  /** the pack that goes with it, and its bytes where it is a new one */
  pack(signal: AbortSignal): Promise<{ readonly pack: Pack | undefined; readonly bytes: Buffer | undefined }>;
}

/** A body to upload. */
export interface NewBody extends Pick<Body, "path" | "sha256" | "size"> {
  readonly bytes: (signal: AbortSignal) => Promise<Buffer>;
}

/**
 * Reads a plain folder as the continuation of the release before.
 *
 * @throws RunnerError `CHANGED_FILE`, `HISTORY_REWRITTEN` — what is released must stay; `OUT_OF_ORDER`; `EMPTY_MIGRATION`; the codes of `analyzeSql` and of the folder
 */
export async function composeRelease(
  options: ComposeOptions,
  before: ReleaseBefore | undefined,
  signal: AbortSignal,
): Promise<Composition> {
  const known = knownFacts(before, options.believesBefore);
  const learn = async (body: BodyRead): Promise<{ keep: boolean; learned: Learned }> => {
    const facts = known.bodies.get(body.sha256);
    return {
      keep: facts === undefined,
      learned: (known.isOurs ? facts : undefined) ?? (await analyze(body, options.engine)),
    };
  };
  const folder = await readFolder(options.folder, { format: options.format, withDown: true, learn }, signal);
  const places = continueSequence(before?.migrations ?? [], folder.migrations, {
    allowLate: options.allowLate,
    settledBy: "release",
  });
  const migrations = linkPlaces(options.stream, places, toBody);
  const all = [
    ...folder.migrations.flatMap(({ up, down, checkpoint }) => [up, down, checkpoint]),
    ...folder.repeatable,
  ].filter((file) => file !== undefined);
  const files = new Map(all.map((file) => [file.sha256, file]));
  const isNew = ({ sha256 }: FolderBody<Learned>): boolean => !known.bodies.has(sha256);
  return {
    format: folder.format,
    migrations,
    repeatable: folder.repeatable.map(toBody),
    registry: folder.registry,
    head: migrations.at(-1)?.chain ?? emptyChain(options.stream),
    bodies: [...files.values()].filter(isNew).map((file) => ({
      path: file.path,
      sha256: file.sha256,
      size: file.size,
      bytes: (stop) => file.read(stop),
    })),
    added: [
      ...places.flatMap(({ found: { path }, settled }) => (settled === undefined ? [path] : [])),
      ...folder.repeatable.filter(isNew).map(({ path }) => path),
    ],
    warnings: [...folder.warnings, ...places.flatMap(warnOfNewLabel)],
    pack: (stop) =>
      makePack(
        migrations,
        options.believesBefore ? before?.manifest.pack : undefined,
        async ({ sha256, path }) => {
          const file = files.get(sha256);
          if (file === undefined) throw new RunnerError("INTERNAL", `"${path}" has no file`);
          return file.read(stop);
        },
      ),
  };
}

/** Everything of a manifest but its own address. */
export function toManifest(
  { stream, engine }: Pick<ComposeOptions, "stream" | "engine">,
  { format, migrations, repeatable, registry }: Composition,
  pack: Pack | undefined,
): Manifest {
  return {
    stream,
    engine,
    format,
    parser: parserName,
    migrations,
    repeatable,
    ...(registry && { registry }),
    ...(pack && { pack }),
  };
}

/** facts, or why there are none; kept until it is known whether the file may be as it is at all */
type Learned = BodyFacts | RunnerError;

function knownFacts(
  before: ReleaseBefore | undefined,
  isBelieved: boolean,
): { readonly bodies: ReadonlyMap<string, BodyFacts>; readonly isOurs: boolean } {
  const bodies = before === undefined ? [] : bodiesOf(before);
  return {
    bodies: new Map(
      bodies.map(({ sha256, tx, alone, locks, statements, code }) => [
        sha256,
        { tx, alone, locks, ...(statements && { statements }), ...(code && { code }) },
      ]),
    ),
    isOurs: isBelieved && before?.manifest.parser === parserName,
  };
}

async function analyze(body: BodyRead, engine: Engine): Promise<Learned> {
  try {
    return await analyzeBody(body, { engine, isSigned: true });
  } catch (error) {
    if (error instanceof RunnerError) return error;
    throw error;
  }
}

function toBody({ path, sha256, size, crc32, learned }: FolderBody<Learned>): Body {
  if (learned instanceof RunnerError) throw learned;
  return { path, sha256, size, ...learned, ...(crc32 !== undefined && { crc32 }) };
}

function warnOfNewLabel({ found, settled }: Place<Migration, FolderMigration<Learned>>): readonly string[] {
  if (settled === undefined || settled.path === found.path) return [];
  return [`"${found.path}" was released under the name "${settled.path}" and keeps it`];
}
