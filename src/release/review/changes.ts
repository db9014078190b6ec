import { RunnerError } from "../../error.ts";
import type { Body, Migration } from "../../migration/migration.ts";
import type { Source } from "../../source/source.ts";
import type { Head } from "../head.ts";
import { isRefusal } from "../refusal.ts";
import { readStoredRelease } from "./stored-release.ts";
import type { StoredRelease } from "./stored-release.ts";
import { ruleFor } from "../trust/trust.ts";
import type { Trust } from "../trust/trust.ts";
import { assertManifestOf, verifyStatement } from "../verify.ts";
import { isAbove } from "./waiting.ts";

/** What a release changes against another one; labels of bodies, in their order. */
export interface ReleaseChanges {
  readonly against: Basis;
  /** migrations that the other one does not have, or not in this place with these bytes */
  readonly added: readonly string[];
  /** of the other one, and not in this at the same place with the same bytes: no database that has them will take this release */
  readonly rewritten: readonly string[];
  /** whose down body is another, new or gone */
  readonly downChanged: readonly string[];
  /** whose checkpoint, which an empty database takes in their place, is another, new or gone */
  readonly checkpointChanged: readonly string[];
  /** repeatable ones that are new or have other bytes: they run again */
  readonly repeatableChanged: readonly string[];
  readonly repeatableGone: readonly string[];
  readonly environmentsAdded: readonly string[];
  readonly environmentsGone: readonly string[];
}

/**
 * What a release was compared with. `nothing`: all of it counts as new.
 *
 * `untrusted`: it says that it follows a release which runners would not have taken. Whoever makes up a release can make
 * up the one before it, and have what he wants to hide look as if it had always been there.
 */
export type Basis =
  | {
      readonly kind: "release";
      readonly digest: string;
      readonly version: number;
      readonly epoch: number;
      /** null where no trust was given */
      readonly isTrusted: true | null;
    }
  | { readonly kind: "nothing"; readonly why: "first" | "gone" | "untrusted" };

/** By whom a basis is judged. */
export interface Judgement {
  /** without it the release that is named as the one before is believed to be that */
  readonly trust: Trust | undefined;
  readonly environment: string;
  readonly now: Date;
}

/**
 * Compares a release with the one before it; where that one cannot be believed, with the newest.
 *
 * @param newest - what the head names
 * @throws RunnerError `SOURCE_…`
 */
export async function readChanges(
  source: Source,
  shown: StoredRelease,
  newest: Head | undefined,
  judgement: Judgement,
  signal: AbortSignal,
): Promise<ReleaseChanges> {
  const { previous } = shown.statement;
  // of an older release, the newest is no basis
  const isOther = newest !== undefined && newest.digest !== shown.digest && isAbove(shown.statement, newest);
  const candidates = [
    ...(previous === null ? [] : [previous]),
    ...(judgement.trust !== undefined && isOther ? [newest.digest] : []),
  ];
  let why: "first" | "gone" | "untrusted" = "first";
  for (const digest of new Set(candidates)) {
    const before = await readUnlessBroken(source, digest, signal);
    if (before !== undefined && isBelieved(before, shown, judgement)) {
      const { version, epoch } = before.statement;
      const isTrusted = judgement.trust === undefined ? null : true;
      return compare({ kind: "release", digest, version, epoch, isTrusted }, before, shown);
    }
    if (why !== "untrusted") why = before === undefined ? "gone" : "untrusted";
  }
  return compare({ kind: "nothing", why }, undefined, shown);
}

async function readUnlessBroken(
  source: Source,
  digest: string,
  signal: AbortSignal,
): Promise<StoredRelease | undefined> {
  try {
    return await readStoredRelease(source, digest, signal);
  } catch (error) {
    if (isRefusal(error)) return undefined;
    throw error;
  }
}

/** As strictly as the release itself, whatever environments the one before was for, and however long it is past. */
function isBelieved(before: StoredRelease, shown: StoredRelease, judgement: Judgement): boolean {
  const { trust, environment, now } = judgement;
  if (trust === undefined) return true;
  const { threshold } = ruleFor(trust, environment);
  const rule = { threshold, maxValidityDays: Infinity };
  try {
    const statement = verifyStatement(before.bytes, {
      stream: shown.statement.stream,
      environment: before.statement.environments[0] ?? "",
      engine: shown.manifest.engine,
      trust: { ...trust, rule, release: new Map() },
      highWaterMark: undefined,
      expected: before.digest,
      now,
    });
    assertManifestOf(statement, before.manifest);
    return true;
  } catch (error) {
    if (error instanceof RunnerError) return false;
    throw error;
  }
}

function compare(
  against: Basis,
  before: StoredRelease | undefined,
  { manifest, statement }: StoredRelease,
): ReleaseChanges {
  const now = manifest.migrations;
  const then = before?.manifest.migrations ?? [];
  // each chain digest is over all before it: from the first that differs on, all are others
  const firstOther = then.findIndex(({ chain }, index) => now[index]?.chain !== chain);
  const common = firstOther === -1 ? then.length : firstOther;
  const bodies = new Map((before?.manifest.repeatable ?? []).map((body) => [body.path, body.sha256]));
  const differs = (part: (migration: Migration) => Body | undefined): readonly string[] =>
    now
      .slice(0, common)
      .filter((migration, index) => {
        const [other] = then.slice(index, index + 1).map(part);
        return part(migration)?.sha256 !== other?.sha256;
      })
      .map(({ path }) => path);
  const environments = before?.statement.environments ?? [];
  return {
    against,
    added: now.slice(common).map(({ path }) => path),
    rewritten: then.slice(common).map(({ path }) => path),
    downChanged: differs(({ down }) => down),
    checkpointChanged: differs(({ checkpoint }) => checkpoint),
    repeatableChanged: manifest.repeatable
      .filter(({ path, sha256 }) => bodies.get(path) !== sha256)
      .map(({ path }) => path),
    repeatableGone: [...bodies.keys()].filter(
      (path) => !manifest.repeatable.some((body) => body.path === path),
    ),
    environmentsAdded: statement.environments.filter((name) => !environments.includes(name)),
    environmentsGone: environments.filter((name) => !statement.environments.includes(name)),
  };
}
