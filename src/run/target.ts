import type { Driver, OrphanPolicy } from "../driver/driver.ts";
import type { Backup } from "../hook/backup.ts";
import type { ReleaseProvider } from "../release/release.ts";

/** A named database with the release stream it follows: one entry of the configuration, opened. */
export interface Target {
  readonly name: string;
  readonly stream: string;
  readonly environment: string;
  readonly releases: ReleaseProvider;
  readonly driver: Driver;
  readonly limits: Limits;
  /** default `wait` */
  readonly orphans?: OrphanPolicy;
  /** default `keep` */
  readonly onFailure?: OnFailure;
  /** made before the first step of every run that has one */
  readonly backup?: Backup;
}

/** When a migration fails: what was applied before it stays, or the run goes back to where it began by the down files. */
export type OnFailure = "keep" | "rollback";

/** Milliseconds; 0 means none for all but `waitMs`, where it means one try. */
export interface Limits {
  /** for another run's lease */
  readonly waitMs: number;
  readonly lockTimeoutMs: number;
  readonly statementTimeoutMs: number;
  /** for the whole run */
  readonly deadlineMs: number;
}
