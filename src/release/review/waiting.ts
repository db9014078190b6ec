import { RunnerError } from "../../error.ts";
import { formatDigest } from "../../migration/checksum.ts";
import { sourceLimits } from "../../source/source.ts";
import type { Source } from "../../source/source.ts";
import { mapConcurrently } from "../concurrent.ts";
import type { Head } from "../head.ts";
import { layout } from "../layout.ts";
import { isRefusal } from "../refusal.ts";
import type { ReleaseStatement } from "../statement.ts";
import { readHeadOf, readStoredLines } from "./stored-release.ts";

/** A release that the head does not name yet. */
export interface WaitingRelease {
  readonly digest: string;
  readonly statement: ReleaseStatement;
  /** lines that it has, whoever wrote them */
  readonly signatures: number;
}

/** Releases that the head does not name yet, and what else lies beside them. */
export interface Waiting {
  /** lowest first */
  readonly releases: readonly WaitingRelease[];
  /** objects beside them that are no releases */
  readonly unreadable: number;
}

/** Each is read: more would keep whoever signs waiting, and a release can always be named by its digest. */
const maxReleases = 5_000;

/**
 * Releases above the head's place, which wait for signatures or were never to be: anybody who writes the bucket can put
 * one there, so what they say of themselves is to be looked at, and their signatures to be counted.
 *
 * @throws RunnerError `TOO_LARGE` — more than 5,000 releases; `SOURCE_…`
 */
export async function findWaiting(source: Source, signal: AbortSignal): Promise<Waiting> {
  const [newest, listed] = await Promise.all([
    readHeadOf(source, signal),
    source.list(releasesFolder, signal),
  ]);
  const digests = listed.map(({ key }) => digestOf(key));
  const named = digests.filter((digest) => digest !== undefined && digest !== newest?.head.digest);
  if (named.length > maxReleases) {
    throw new RunnerError("TOO_LARGE", `${source.url} holds more than ${maxReleases} releases`, {
      hint: "name the one that is meant with --release, as publish printed it",
    });
  }
  const read = await mapConcurrently(named, sourceLimits.concurrency, signal, (digest, stop) =>
    readUnlessBroken(source, digest ?? "", newest?.head, stop),
  );
  const releases = read.filter((one) => typeof one === "object");
  return {
    releases: releases.toSorted((left, right) => compareRanks(left.statement, right.statement)),
    unreadable:
      digests.filter((digest) => digest === undefined).length + read.filter((one) => one === "broken").length,
  };
}

type Rank = Pick<Head, "epoch" | "version">;

/** Whether it has a place above the head's: below it, nothing waits any more. */
export function isAbove(release: Rank, head: Rank | undefined): boolean {
  return head === undefined || compareRanks(release, head) > 0;
}

const releasesFolder = layout.release("").replace(/sha256-.*$/, "");

function digestOf(key: string): string | undefined {
  const hex = /sha256-([0-9a-f]{64})\./.exec(key)?.[1];
  return hex !== undefined && layout.release(hex) === key ? formatDigest(hex) : undefined;
}

async function readUnlessBroken(
  source: Source,
  digest: string,
  head: Head | undefined,
  signal: AbortSignal,
): Promise<WaitingRelease | "broken" | "published"> {
  try {
    // its bytes are let go: whoever writes the bucket could fill our memory with them
    const { statement, envelopes } = await readStoredLines(source, digest, signal);
    return isAbove(statement, head) ? { digest, statement, signatures: envelopes.length } : "published";
  } catch (error) {
    if (isRefusal(error)) return "broken";
    throw error;
  }
}

function compareRanks(left: Rank, right: Rank): number {
  return left.epoch - right.epoch || left.version - right.version;
}
