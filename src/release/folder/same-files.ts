import { isDeepStrictEqual } from "node:util";

import { RunnerError } from "../../error.ts";
import type { ChooseFormat } from "../../migration/format/choose-format.ts";
import type { Body, Migration } from "../../migration/migration.ts";
import type { Source } from "../../source/source.ts";
import { composeRelease } from "../publish/compose.ts";
import type { Composition } from "../publish/compose.ts";
import type { Manifest } from "../manifest.ts";
import { misdescribed } from "../review/misdescribed.ts";

/**
 * Refuses a release that was not made of a folder's files: what a second signer has reviewed, in a checkout of their own.
 *
 * What the first signer's parser found of each body (in a transaction or not, which statements it has) is found again and
 * compared. Also where it calls itself another parser than ours: whoever lies about a body can lie about who looked at it.
 *
 * @throws RunnerError `CHANGED_FILE` — a file is another one, missing, or too many; the codes of the folder
 */
export async function assertSameFiles(
  manifest: Manifest,
  { folder, format }: { readonly folder: Source; readonly format: ChooseFormat },
  signal: AbortSignal,
): Promise<void> {
  const { stream, engine, migrations, repeatable } = manifest;
  const composing = { folder, stream, engine, format, allowLate: true, believesBefore: false };
  const shown = { migrations, repeatable, manifest };
  const composed = await composeRelease(composing, shown, signal).catch(ifOther);
  const otherBytes = labelsThatDiffer(manifest, composed, digestsOf);
  if (otherBytes[0] !== undefined) throw different(otherBytes[0], otherBytes.length - 1);
  const [otherFacts] = labelsThatDiffer(manifest, composed, (body) => body);
  if (otherFacts !== undefined) throw misdescribed(otherFacts, manifest.parser);
  if (!isDeepStrictEqual(composed.registry ?? null, manifest.registry ?? null))
    throw different(".migration-registry.yaml", 0);
}

/** Of the longer list, those that are not at the same place in the other, as far as they are looked at. */
function labelsThatDiffer(
  manifest: Manifest,
  composed: Composition,
  seen: (body: Comparable) => object,
): readonly string[] {
  const pairs: readonly (readonly [readonly Comparable[], readonly Comparable[]])[] = [
    [manifest.migrations, composed.migrations],
    [manifest.repeatable, composed.repeatable],
  ];
  return pairs.flatMap(([theirs, ours]) =>
    Array.from({ length: Math.max(theirs.length, ours.length) }, (_, at) => [theirs[at], ours[at]] as const)
      .filter(
        ([their, our]) =>
          their === undefined || our === undefined || !isDeepStrictEqual(seen(their), seen(our)),
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
