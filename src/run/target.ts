import type { Driver, OrphanPolicy } from "../driver/driver.ts";
import type { Backup } from "../hook/backup.ts";
import type { ReleaseProvider } from "../release/release.ts";
import type { RunObserver } from "./observer.ts";

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
  /** how the database of another service is found, for what its migrations are depended on; absent: none is known */
  readonly openService?: OpenService;
  /** default `refuse` */
  readonly dependencies?: DependencyPolicy;
  /** migrations that are programs run in this process: only where its user and their author are one; default false */
  readonly mayRunCode?: boolean;
  /** no request needs to allow what breaks something; default false */
  readonly allowsBreaking?: boolean;
  /** by its configuration: no run of it begins; default false */
  readonly isPaused?: boolean;
  /** the object whose change means that there may be a new release; absent for folders and plain files */
  readonly watched?: WatchedObject;
  /** who looks at its runs from outside */
  readonly observers?: readonly RunObserver[];
}

/** An object in a bucket. */
export interface WatchedObject {
  readonly provider: "s3" | "gcs";
  readonly bucket: string;
  /** `orders/head.json` */
  readonly key: string;
}

/**
 * Opens the database of a service for reading.
 *
 * @throws RunnerError `CONFIG` - nothing says which it is, or more than one could be it
 */
export type OpenService = (service: string) => Promise<ServiceDatabase>;

/** Another service's database, for as long as somebody asks it. */
export interface ServiceDatabase extends AsyncDisposable {
  /** name of its target */
  readonly target: string;
  readonly stream: string;
  readonly driver: Pick<Driver, "state" | "history">;
}

/** Where a service that is depended on is not at its version yet: wait for it as long as for a lease, or refuse the run. */
export type DependencyPolicy = "wait" | "refuse";

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
