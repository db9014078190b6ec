import { dirname, resolve } from "node:path";
import { RunnerError } from "../error.ts";
import type { BackupChoice, StorageChoice, TargetChoice, Variables } from "../cli/context.ts";
import { nearest } from "../cli/nearest.ts";
import type { OrphanPolicy } from "../driver/driver.ts";
import type { Engine } from "../migration/migration.ts";
import type { DependencyPolicy, OnFailure } from "../run/target.ts";
import type { Limits } from "../runner.ts";
import type { ConfigText } from "./config-schema.ts";

/** A configuration file, checked, its paths absolute. */
export interface Config {
  readonly file: string;
  /** where callers reach the server; undefined when the file does not say */
  readonly publicUrl: string | undefined;
  readonly listen: { readonly host: string; readonly port: number };
  /** absolute path of the policy */
  readonly policyFile: string | undefined;
  readonly targets: ReadonlyMap<string, TargetSettings>;
}

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
export interface DatabaseSettings {
  readonly url: UrlSettings;
  readonly passwordFile: string | undefined;
  readonly schema: string | undefined;
  /** past a transaction pooler */
  readonly direct: { readonly url: UrlSettings; readonly passwordFile: string | undefined } | undefined;
}

/** A URL by itself, in a file, or in a variable. */
export type UrlSettings =
  | { readonly kind: "text"; readonly url: string }
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "variable"; readonly name: string };

/** Other S3 and GCS servers than the usual ones. */
export interface StorageSettings {
  readonly s3: { readonly endpoint?: string; readonly region?: string; readonly forcePathStyle?: boolean };
  readonly gcs: { readonly endpoint?: string };
}

/** Where nothing else is said. */
export const defaultLimits: Limits = {
  waitMs: 600_000,
  lockTimeoutMs: 5_000,
  statementTimeoutMs: 0,
  deadlineMs: 0,
};

/** milliseconds; a dump of a large database takes long, and a run's own deadline holds as well */
const defaultBackupMs = 3_600_000;
const defaultListen = { host: "127.0.0.1", port: 8080 };
const defaultFile = "lockkeeper.yaml";

/** The process's environment: read here and nowhere else. */
export function readVariables(): Variables {
  return process.env;
}

/**
 * A configuration file; relative paths in it are relative to it.
 *
 * @throws RunnerError `CONFIG` with every problem at once, each with its line, column and path in the file
 */
export async function loadConfig(file: string = defaultFile): Promise<Config> {
  // a start without a configuration file needs neither the YAML parser nor the schema
  const [{ readConfigFile }, { parseListen }] = await Promise.all([
    import("./config-file.ts"),
    import("./config-schema.ts"),
  ]);
  const text = await readConfigFile(file);
  const folder = dirname(resolve(file));
  return {
    file,
    publicUrl: text.publicUrl?.replace(/\/$/, ""),
    listen: (text.listen === undefined ? undefined : parseListen(text.listen)) ?? defaultListen,
    policyFile: text.policy === undefined ? undefined : resolve(folder, text.policy),
    targets: new Map(Object.keys(text.targets).map((name) => [name, settingsOf(name, text, folder)])),
  };
}

/**
 * A target from flags and variables over the configuration file. `DATABASE_URL` comes last: it is often set for
 * an application, and must not lead a named target to another database.
 *
 * @throws RunnerError `CONFIG`, `UNKNOWN_TARGET`, `UNSIGNED_REFUSED`
 */
export async function chooseSettings(choice: TargetChoice, variables: Variables): Promise<TargetSettings> {
  const base = choice.target === undefined ? undefined : await namedTarget(choice.target, choice.config);
  if (choice.isUnsigned && choice.trust.length > 0) {
    throw new RunnerError("USAGE", "--unsigned and --trust (or LOCKKEEPER_TRUST) do not go together", {
      hint: "--unsigned takes files whoever wrote them; leave it out to have signatures checked",
    });
  }
  if (choice.isUnsigned && base?.trust !== undefined) {
    throw new RunnerError(
      "UNSIGNED_REFUSED",
      `target "${choice.target ?? ""}" takes signed releases only: its configuration names a trust`,
    );
  }
  return {
    name: choice.target,
    engine: base?.engine,
    stream: choice.stream ?? base?.stream,
    environment: choice.environment ?? base?.environment,
    source: choice.source ?? base?.source,
    trust: trustOf(choice) ?? base?.trust,
    format: choice.format ?? base?.format,
    placeholders: { ...base?.placeholders, ...choice.placeholders },
    allowsLate: choice.allowsLate,
    database: databaseOf(choice, base?.database, variables["DATABASE_URL"]),
    limits: {
      waitMs: choice.limits.waitMs ?? base?.limits.waitMs ?? defaultLimits.waitMs,
      lockTimeoutMs: choice.limits.lockTimeoutMs ?? base?.limits.lockTimeoutMs ?? defaultLimits.lockTimeoutMs,
      statementTimeoutMs:
        choice.limits.statementTimeoutMs ??
        base?.limits.statementTimeoutMs ??
        defaultLimits.statementTimeoutMs,
      deadlineMs: choice.limits.deadlineMs ?? base?.limits.deadlineMs ?? defaultLimits.deadlineMs,
    },
    orphans: choice.orphans ?? base?.orphans,
    onFailure: base?.onFailure,
    services: base?.services ?? {},
    dependencies: choice.dependencies ?? base?.dependencies,
    allowsBreaking: base?.allowsBreaking ?? false,
    backup: backupOf(choice.backup, base?.backup),
    storage: chooseStorage(choice.storage, base?.storage),
  };
}

/** Which servers are spoken to: what was chosen, over what `base` has. */
export function chooseStorage(
  choice: StorageChoice,
  base: StorageSettings = { s3: {}, gcs: {} },
): StorageSettings {
  return mergeStorage(base, {
    s3: { endpoint: choice.s3Endpoint, region: choice.s3Region, pathStyle: choice.s3PathStyle },
    gcs: { endpoint: choice.gcsEndpoint },
  });
}

async function namedTarget(name: string, file: string | undefined): Promise<TargetSettings> {
  const config = await loadConfig(file);
  const found = config.targets.get(name);
  if (found !== undefined) return found;
  const names = [...config.targets.keys()];
  const meant = nearest(name, names);
  throw new RunnerError("UNKNOWN_TARGET", `target "${name}" is not in ${config.file}`, {
    hint: meant === undefined ? `there are ${names.join(", ")}` : `did you mean ${meant}?`,
  });
}

function trustOf({ isUnsigned, trust }: TargetChoice): TrustSettings | undefined {
  if (isUnsigned) return { kind: "unsigned" };
  return trust.length === 0 ? undefined : { kind: "files", paths: trust };
}

function databaseOf(
  choice: TargetChoice,
  base: DatabaseSettings | undefined,
  fallback: string | undefined,
): DatabaseSettings | undefined {
  const written = choice.database ?? (base === undefined && fallback !== "" ? fallback : undefined);
  const url: UrlSettings | undefined = written === undefined ? base?.url : { kind: "text", url: written };
  if (url === undefined) return undefined;
  const passwordFile = choice.passwordFile ?? (written === undefined ? base?.passwordFile : undefined);
  const direct =
    choice.directDatabase === undefined
      ? written === undefined
        ? base?.direct
        : undefined
      : { url: { kind: "text" as const, url: choice.directDatabase }, passwordFile };
  return { url, passwordFile, schema: choice.schema ?? base?.schema, direct };
}

/** What was said in this call replaces what the file says, but for the time. */
function backupOf(choice: BackupChoice, base: BackupSettings | undefined): BackupSettings | undefined {
  const { command, url, headerFile } = choice;
  const timeoutMs = choice.timeoutMs ?? base?.timeoutMs ?? defaultBackupMs;
  if (command !== undefined && url !== undefined)
    throw new RunnerError("USAGE", "--backup-command and --backup-url do not go together");
  if (headerFile !== undefined && url === undefined)
    throw new RunnerError("USAGE", "--backup-header-file goes with --backup-url");
  if (command !== undefined) return { kind: "command", argv: command, timeoutMs };
  if (url !== undefined) return { kind: "webhook", url, headerFile, timeoutMs };
  return base === undefined ? undefined : { ...base, timeoutMs };
}

/** A program beside the file is found there; any other on PATH. */
function backupIn(text: BackupText | undefined, folder: string): BackupSettings | undefined {
  if (text === undefined) return undefined;
  const timeoutMs = text.timeout ?? defaultBackupMs;
  if (text.webhook !== undefined) {
    const { url, headerFile } = text.webhook;
    return {
      kind: "webhook",
      url,
      headerFile: headerFile === undefined ? undefined : resolve(folder, headerFile),
      timeoutMs,
    };
  }
  const [program = "", ...rest] = text.command ?? [];
  const isBeside = program.startsWith("./") || program.startsWith("../");
  return { kind: "command", argv: [isBeside ? resolve(folder, program) : program, ...rest], timeoutMs };
}

type BackupText = NonNullable<ConfigText["targets"][string]["backup"]>;

function settingsOf(name: string, config: ConfigText, folder: string): TargetSettings {
  const target = config.targets[name];
  if (target === undefined) throw new RunnerError("INTERNAL", "a target vanished from the configuration");
  const { database, limits } = target;
  return {
    name,
    engine: target.engine,
    stream: target.stream,
    environment: target.environment,
    source: absoluteSource(target.source, folder),
    trust:
      target.trust === undefined
        ? undefined
        : { kind: "section", value: config.trust[target.trust], folder, what: `trust "${target.trust}"` },
    format: target.format,
    placeholders: target.placeholders,
    allowsLate: false,
    database: {
      ...urlOf(database, folder),
      schema: database.schema,
      direct: database.direct === undefined ? undefined : urlOf(database.direct, folder),
    },
    limits: {
      waitMs: limits.wait ?? defaultLimits.waitMs,
      lockTimeoutMs: limits.lockTimeout ?? defaultLimits.lockTimeoutMs,
      statementTimeoutMs: limits.statementTimeout ?? defaultLimits.statementTimeoutMs,
      deadlineMs: limits.deadline ?? defaultLimits.deadlineMs,
    },
    orphans: target.orphans,
    onFailure: target.onFailure,
    services: target.services,
    dependencies: target.dependencies,
    allowsBreaking: target.allowBreaking,
    backup: backupIn(target.backup, folder),
    storage: mergeStorage(mergeStorage({ s3: {}, gcs: {} }, config), target),
  };
}

type UrlText = Pick<ConfigText["targets"][string]["database"], "url" | "urlFile" | "urlEnv" | "passwordFile">;

function urlOf(
  text: UrlText,
  folder: string,
): { readonly url: UrlSettings; readonly passwordFile: string | undefined } {
  const passwordFile = text.passwordFile === undefined ? undefined : resolve(folder, text.passwordFile);
  if (text.urlFile !== undefined)
    return { url: { kind: "file", path: resolve(folder, text.urlFile) }, passwordFile };
  if (text.urlEnv !== undefined) return { url: { kind: "variable", name: text.urlEnv }, passwordFile };
  return { url: { kind: "text", url: text.url ?? "" }, passwordFile };
}

/** A folder is written without a scheme. */
function absoluteSource(source: string, folder: string): string {
  return /^[A-Za-z][A-Za-z0-9+.-]+:/.test(source) ? source : resolve(folder, source);
}

interface StorageText {
  readonly s3: {
    readonly endpoint?: string | undefined;
    readonly region?: string | undefined;
    readonly pathStyle?: boolean | undefined;
  };
  readonly gcs: { readonly endpoint?: string | undefined };
}

function mergeStorage(base: StorageSettings, over: StorageText): StorageSettings {
  const { endpoint, region, pathStyle } = over.s3;
  return {
    s3: {
      ...base.s3,
      ...(endpoint === undefined ? {} : { endpoint }),
      ...(region === undefined ? {} : { region }),
      ...(pathStyle === undefined ? {} : { forcePathStyle: pathStyle }),
    },
    gcs: { ...base.gcs, ...(over.gcs.endpoint === undefined ? {} : { endpoint: over.gcs.endpoint }) },
  };
}
