import { isDeepStrictEqual } from "node:util";

import { RunnerError } from "../error.ts";
import type { ChooseFormat } from "../migration/format/choose-format.ts";
import type { Body, Migration } from "../migration/migration.ts";
import type { Source } from "../source/source.ts";
import { composeRelease, parserName } from "./compose.ts";
import type { Composition } from "./compose.ts";
import type { Manifest } from "./manifest.ts";

/**
 * Refuses a release that was not made of a folder's files: what a second signer has reviewed, in a checkout of their own.
 *
 * What the first signer's parser found of each body (in a transaction or not, whole or not) is found again and compared,
 * if it was by the same parser.
 *
 * @throws RunnerError `CHANGED_FILE` — a file is another one, missing, or too many; the codes of the folder
 */
export async function assertSameFiles(
  manifest: Manifest,
  { folder, format }: { readonly folder: Source; readonly format: ChooseFormat },
  signal: AbortSignal,
): Promise<void> {
  const { stream, engine, migrations, repeatable } = manifest;
  const composing = { folder, stream, engine, format, allowLate: true };
  // by a parser of no name, so that nothing is taken over from what is to be checked
  const shown = { migrations, repeatable, manifest: { ...manifest, parser: "" } };
  const composed = await composeRelease(composing, shown, signal).catch(ifOther);
  const isSameParser = manifest.parser === parserName;
  const differing = labelsThatDiffer(manifest, composed, isSameParser);
  const [first] = differing;
  if (first !== undefined) throw different(first, differing.length - 1);
  if (!isDeepStrictEqual(composed.registry ?? null, manifest.registry ?? null))
    throw different(".migration-registry.yaml", 0);
}

/** Of the longer list, those that are not at the same place, with the same bytes, in the other. */
function labelsThatDiffer(
  manifest: Manifest,
  composed: Composition,
  isSameParser: boolean,
): readonly string[] {
  const pairs: readonly (readonly [readonly Comparable[], readonly Comparable[]])[] = [
    [manifest.migrations, composed.migrations],
    [manifest.repeatable, composed.repeatable],
  ];
  const strip = isSameParser ? (one: Comparable) => one : digestsOf;
  return pairs.flatMap(([theirs, ours]) =>
    Array.from({ length: Math.max(theirs.length, ours.length) }, (_, at) => [theirs[at], ours[at]] as const)
      .filter(
        ([their, our]) =>
          their === undefined || our === undefined || !isDeepStrictEqual(strip(their), strip(our)),
      )
      .map(([their, our]) => their?.path ?? our?.path ?? ""),
  );
}

type Comparable = Body & Partial<Pick<Migration, "seq" | "version" | "chain" | "down" | "checkpoint">>;

/** What is the same whichever parser looked at it. */
function digestsOf({ path, sha256, chain, down, checkpoint }: Comparable) {
  return { path, sha256, chain, down: down?.sha256, checkpoint: checkpoint?.sha256 };
}

/** The folder is read as the continuation of the release; what then is told as a change of history is a difference here. */
function ifOther(error: unknown): never {
  if (!(error instanceof RunnerError)) throw error;
  if (error.code !== "HISTORY_REWRITTEN" && error.code !== "CHANGED_FILE") throw error;
  throw different(String(error.fields["migration"]), 0, error);
}

function different(path: string, more: number, cause?: unknown): RunnerError {
  const others = more > 0 ? ` and ${more} more` : "";
  return new RunnerError(
    "CHANGED_FILE",
    `the release was not made of these files: "${path}"${others} differs, or is in one of them only`,
    {
      hint: "compare with the commit that the release was published from; if that is the one, do not sign",
      fields: { migration: path },
      cause,
    },
  );
}
