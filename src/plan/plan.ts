import type { Position } from "../history/entry.ts";
import type { Body, Direction, Migration } from "../migration/migration.ts";
import type { RegisteredMigration } from "../release/registry.ts";

/** Ordered steps from where a database is to where a request wants it. Pure data; made by `makePlan`. */
export interface Plan {
  readonly stream: string;
  readonly from: Position;
  readonly to: Position;
  readonly steps: readonly Step[];
  /** release the steps come from */
  readonly releaseDigest: string;
  /** `sha256:<hex>` over start, direction, versions and checksums: equal digests run equal bytes in equal order from an equal start */
  readonly digest: string;
}

/** One migration in one direction. */
export interface Step {
  readonly direction: Direction;
  readonly migration: Migration;
  /** the up or the down body, or a checkpoint */
  readonly body: Body;
  /** of a checkpoint: the migrations before its own that it stands for */
  readonly covers: readonly Migration[];
  /** statements that an earlier, failed attempt has done; they are not repeated */
  readonly resumeAt: number;
  /** upwards: whether it breaks something, and what it needs of other services, where the registry says so */
  readonly registered?: RegisteredMigration;
}

/** Where a request wants the database. */
export type Goal =
  /** everything in the release */
  | { readonly kind: "latest" }
  /** the first `count` pending ones, or the last `count` applied ones */
  | { readonly kind: "steps"; readonly direction: Direction; readonly count: number }
  /** exactly this version is the last applied one; `"0"` is none. `allow` says which way the caller may go */
  | { readonly kind: "version"; readonly version: string; readonly allow: Direction | "both" }
  /** the last applied one down and up again */
  | { readonly kind: "redo" };
