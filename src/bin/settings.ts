import type { OrphanPolicy } from "../driver/driver.ts";
import type { Engine } from "../migration/migration.ts";
import type { DependencyPolicy, OnFailure } from "../run/target.ts";
import type { Limits } from "../runner.ts";
import type { Endpoint } from "./endpoint.ts";

/** Everything that is known of a target before anything is opened. */
export interface TargetSettings {
  readonly name: string | undefined;
  /** of the configuration; a URL on the command line says it by itself */
  readonly engine: Engine | undefined;
  readonly stream: string | undefined;
  /** `default` where nobody says */
  readonly environment: string | undefined;
  /** a URL or an absolute folder */
  readonly source: string | undefined;
  readonly trust: TrustSettings | undefined;
  readonly format: string | undefined;
  readonly placeholders: Readonly<Record<string, string>>;
  readonly allowsLate: boolean;
  readonly database: DatabaseSettings | undefined;
  readonly limits: Limits;
  readonly orphans: OrphanPolicy | undefined;
  readonly onFailure: OnFailure | undefined;
  /** names of targets by the service whose database they are */
  readonly services: Readonly<Record<string, string>>;
  readonly dependencies: DependencyPolicy | undefined;
  readonly allowsBreaking: boolean;
  /** no run begins */
  readonly isPaused: boolean;
  readonly backup: BackupSettings | undefined;
  readonly storage: StorageSettings;
}

/** What makes a backup before the first step of a run. */
export type BackupSettings = { readonly timeoutMs: number } & (
  | { readonly kind: "command"; readonly argv: readonly [string, ...string[]] }
  | { readonly kind: "webhook"; readonly url: string; readonly headerFile: string | undefined }
);

/** Whose signatures count; `unsigned` asks for none. */
export type TrustSettings =
  | { readonly kind: "files"; readonly paths: readonly string[] }
  | { readonly kind: "section"; readonly value: unknown; readonly folder: string; readonly what: string }
  | { readonly kind: "unsigned" };

/** Where a database URL and its password are found. */
export interface AccessSettings {
  readonly url: UrlSettings;
  /** undefined: in the URL, if there is one */
  readonly password: PasswordSettings | undefined;
}

/** A database, and where our own tables are in it. */
export interface DatabaseSettings extends AccessSettings {
  readonly schema: string | undefined;
  /** past a transaction pooler */
  readonly direct: AccessSettings | undefined;
}

/** A URL by itself, in a file, in a variable, or in a cloud's store of secrets. */
export type UrlSettings =
  | { readonly kind: "text"; readonly url: string }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "variable"; readonly name: string }
  | { readonly kind: "secret"; readonly name: string };

/** A password that is not in the URL, or a token of the platform's in its place. */
export type PasswordSettings =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "secret"; readonly name: string }
  | { readonly kind: "iam"; readonly platform: IamPlatform; readonly endpoint: Endpoint | undefined };

/** Platforms whose tokens a database takes. */
export const iamPlatforms = ["rds", "cloud-sql"] as const;

/** One of {@link iamPlatforms}. */
export type IamPlatform = (typeof iamPlatforms)[number];

/** What starts another execution of this program. */
export interface WorkSettings {
  /** `projects/…/locations/…/jobs/…`, whose command is `lockkeeper work` */
  readonly cloudRunJob: string;
}

/** Other S3 and GCS servers than the usual ones. */
export interface StorageSettings {
  readonly s3: { readonly endpoint?: string; readonly region?: string; readonly forcePathStyle?: boolean };
  readonly gcs: { readonly endpoint?: string };
}

/** For which a release is published, and a target is, unless told otherwise. */
export const defaultEnvironment = "default";

/** Where nothing else is said. */
export const defaultLimits: Limits = {
  waitMs: 600_000,
  lockTimeoutMs: 5_000,
  statementTimeoutMs: 0,
  deadlineMs: 0,
};

/** milliseconds; a dump of a large database takes long, and a run's own deadline holds as well */
export const defaultBackupMs = 3_600_000;
