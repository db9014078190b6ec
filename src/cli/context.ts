import type { Driver, OrphanPolicy } from "../driver/driver.ts";
import type { ChooseFormat } from "../migration/format/choose-format.ts";
import type { Engine } from "../migration/migration.ts";
import type { TrustAnchor } from "../release/trust/anchor.ts";
import type { ReleaseProvider } from "../release/release.ts";
import type { Sink } from "../report/sink.ts";
import type { DependencyPolicy } from "../run/target.ts";
import type { Limits, Target } from "../runner.ts";
import type { PolicyQuestion, PolicyReport } from "./policy-report.ts";
import type { Source, WritableSource } from "../source/source.ts";

/** Everything the command line takes from the process it runs in; made in `bin/cli.ts`, by hand in tests. */
export interface Context {
  /** variables by name, as `bin/config.ts` read them */
  readonly variables: Variables;
  readonly stdout: Sink;
  readonly stderr: Sink;
  /** aborts on SIGINT and SIGTERM */
  readonly signal: AbortSignal;
  /** Builds clients; loaded only by verbs that need one. */
  wire(): Promise<Wiring>;
}

/** Environment variables, or what stands for them. */
export type Variables = Readonly<Record<string, string | undefined>>;

/** What was said about the target on the command line and in variables; a configuration file fills the rest. */
export interface TargetChoice {
  readonly target: string | undefined;
  readonly config: string | undefined;
  readonly source: string | undefined;
  readonly database: string | undefined;
  readonly databaseSecret: string | undefined;
  readonly passwordFile: string | undefined;
  readonly passwordSecret: string | undefined;
  readonly databaseIam: "rds" | "cloud-sql" | undefined;
  readonly directDatabase: string | undefined;
  readonly schema: string | undefined;
  readonly stream: string | undefined;
  readonly environment: string | undefined;
  /** public keys and trust files */
  readonly trust: readonly string[];
  readonly isUnsigned: boolean;
  readonly format: string | undefined;
  /** what stands for Flyway's `${name}` */
  readonly placeholders: Readonly<Record<string, string>>;
  readonly allowsLate: boolean;
  readonly limits: { readonly [K in keyof Limits]: number | undefined };
  readonly orphans: OrphanPolicy | undefined;
  readonly dependencies: DependencyPolicy | undefined;
  readonly backup: BackupChoice;
  readonly storage: StorageChoice;
}

/** What makes a backup before the first step, as it was said. */
export interface BackupChoice {
  readonly command: readonly [string, ...string[]] | undefined;
  readonly url: string | undefined;
  readonly headerFile: string | undefined;
  readonly timeoutMs: number | undefined;
}

/** Which S3 and GCS servers are spoken to, where it is not the usual ones. */
export interface StorageChoice {
  readonly s3Endpoint: string | undefined;
  readonly s3Region: string | undefined;
  readonly s3PathStyle: boolean | undefined;
  readonly gcsEndpoint: string | undefined;
}

/** Who builds clients from a choice; implemented in `bin/wire.ts`. */
export interface Wiring {
  /** A target with its database and its releases; `up` spares a plain folder's down files. */
  openTarget(choice: TargetChoice, directions: "up" | "both"): Promise<OpenTarget>;
  /** The targets of a configuration, each opened when its turn comes; `choice` says nothing of any one of them. */
  openTargets(choice: TargetChoice): Promise<OpenTargets>;
  /** Only the database of a target: for verbs that need no release. */
  openDatabase(choice: TargetChoice): Promise<OpenDatabase>;
  /** Only the releases of a target: for verbs that need no database. */
  openReleases(choice: TargetChoice): Promise<OpenReleases>;
  /** A bucket prefix or folder, to publish from or into. */
  openSource(
    url: string,
    storage: StorageChoice,
    options?: { readonly create: boolean },
  ): Promise<WritableSource>;
  /** Where the other streams of a configuration's targets are released. */
  openOtherReleases(config: string, stream: string): Promise<readonly Source[]>;
  /** The way that plain files are laid out: of a tool by its name, or as they look like. */
  chooseFormat(choice: Pick<TargetChoice, "format" | "placeholders">, engine: Engine): Promise<ChooseFormat>;
  /** Reads a policy as the server does, and explains what a request would come to. */
  checkPolicy(question: PolicyQuestion): Promise<PolicyReport>;
  /** Executes the open runs of a configuration's targets; gives the exit code. */
  work(
    choice: {
      readonly config: string | undefined;
      readonly target: string | undefined;
      readonly deadlineMs: number;
    },
    signal: AbortSignal,
  ): Promise<number>;
  /** Serves HTTP until the signal aborts. */
  serve(
    choice: { readonly config: string; readonly listen: string | undefined },
    signal: AbortSignal,
    onListening: (url: string) => void,
  ): Promise<void>;
}

/** A target and what closes it. */
export interface OpenTarget extends AsyncDisposable {
  readonly target: Target;
}

/** All targets of a configuration. */
export interface OpenTargets extends AsyncDisposable {
  /** in the order of the file */
  readonly names: readonly string[];
  open(name: string): Promise<OpenTarget>;
}

/** A database and the stream that is meant. */
export interface OpenDatabase extends AsyncDisposable {
  readonly driver: Driver;
  readonly stream: string;
}

/** Where releases are, and what they are judged against; what was not said is undefined. */
export type OpenReleases =
  | {
      readonly kind: "signed";
      readonly source: Source;
      readonly trust: TrustAnchor | undefined;
      readonly stream: string | undefined;
      readonly environment: string | undefined;
    }
  | { readonly kind: "plain"; readonly releases: ReleaseProvider };
