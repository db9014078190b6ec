import type { RunnerError } from "../error.ts";
import type { Body, Engine, Migration } from "../migration/migration.ts";
import type { KnownRoots, RootState } from "./trust/anchor.ts";
import type { Registry } from "./registry.ts";

/**
 * An ordered, checked list of migrations, from a signed release or from a plain folder.
 *
 * What the rest of the program sees: whoever holds a `Release` need not ask again where it came from.
 */
export interface Release {
  readonly kind: "signed" | "plain";
  readonly stream: string;
  readonly engine: Engine;
  /** `sha256:<hex>` of the signed statement; for a plain folder `plain:<hex>` over its names, sizes and checksums */
  readonly digest: string;
  /** absent for a plain folder */
  readonly rank?: ReleaseRank;
  readonly migrations: readonly Migration[];
  /** run after all others, in this order, whenever their bytes change; named by their paths */
  readonly repeatable: readonly Body[];
  /** which migrations break something, and what they need of other services */
  readonly registry?: Registry;
  /** when a signed release may no longer be applied */
  readonly expires?: Date;
  /** why nobody vouches that it is the newest, where the trust wants that; absent where somebody does, or nobody need */
  readonly stale?: RunnerError;
  /** ids of the keys and identities whose signatures counted */
  readonly signers: readonly string[];
  /** the root that said whose signatures count; absent where the runner pins them itself */
  readonly root?: RootState;
  /** what a person should hear of, e.g. files that golang-migrate would read differently */
  readonly warnings: readonly string[];
}

/** Every body of a release: up, down and checkpoint, and the repeatable ones. */
export function bodiesOf({
  migrations,
  repeatable,
}: Pick<Release, "migrations" | "repeatable">): readonly Body[] {
  return [...migrations.flatMap((one) => [one, one.down, one.checkpoint]), ...repeatable].filter(
    (body) => body !== undefined,
  );
}

/** Order among the releases of one stream: by epoch, then version. */
export interface ReleaseRank {
  readonly epoch: number;
  readonly version: number;
}

/** What the database remembers of the newest release it began to apply. */
export interface HighWaterMark extends ReleaseRank {
  readonly digest: string;
}

/** What the database says was applied, oldest first; needed to order a plain folder and to check a chain. */
export interface AppliedMigration {
  readonly version: string;
  readonly path: string;
  readonly sha256: string;
  readonly size: number;
  readonly chain: string;
  /** `checkpoint`: it came by one, and `path` and `sha256` are that one's; `size` and `chain` are its own all the same */
  readonly origin?: string;
}

/** Facts that a release is judged against. */
export interface ReleaseContext {
  readonly highWaterMark: HighWaterMark | undefined;
  /** absent where no database is asked */
  readonly knownRoots?: KnownRoots;
  /** digest that the caller expects; another one is `UNEXPECTED_RELEASE` */
  readonly expected: string | undefined;
  /** read once per run */
  readonly now: Date;
  /** asked only for a plain folder */
  applied(): Promise<readonly AppliedMigration[]>;
}

/** Where a run gets its release: a signed prefix or a plain folder. Does all of the network before the lease is taken. */
export interface ReleaseProvider {
  readonly kind: Release["kind"];
  readonly stream: string;
  /** where from, for people; never holds a credential */
  readonly url: string;

  /**
   * What the source calls its newest release, cheaply: one request for a signed prefix. A hint that proves
   * nothing: it may only lead to doing nothing. `undefined` where there is none yet, or where asking would cost as much as fetching.
   */
  head(signal: AbortSignal): Promise<string | undefined>;

  /**
   * The release, verified against `context`; nothing of a body is fetched yet (a plain folder reads its bodies to checksum them).
   *
   * @throws RunnerError the codes of `trust.md` 2.5 in its order
   */
  fetch(context: ReleaseContext, signal: AbortSignal): Promise<Release>;

  /**
   * The bytes of the given bodies of a release that `fetch` gave, by sha256; each verified by size and digest.
   *
   * @throws RunnerError `BLOB_DIGEST`, `TOO_LARGE`, `SOURCE_…`; then none is returned
   */
  bodies(
    release: Release,
    bodies: readonly Body[],
    signal: AbortSignal,
  ): Promise<ReadonlyMap<string, Buffer>>;
}
