import { dirname, resolve } from "node:path";
import { RunnerError } from "../error.ts";
import type { BackupChoice, StorageChoice, TargetChoice, Variables } from "../cli/context.ts";
import { nearest } from "../cli/nearest.ts";
import type { NotifyText } from "./notify-schema.ts";
import { mergeStorage, settingsOf } from "./file-settings.ts";
import { defaultBackupMs, defaultLimits } from "./settings.ts";
import type {
  BackupSettings,
  DatabaseSettings,
  PasswordSettings,
  StorageSettings,
  TargetSettings,
  TrustSettings,
  UrlSettings,
  WorkSettings,
} from "./settings.ts";

/** A configuration file, checked, its paths absolute. */
export interface Config {
  readonly file: string;
  /** where callers reach the server; undefined when the file does not say */
  readonly publicUrl: string | undefined;
  /** undefined when the file does not say */
  readonly listen: { readonly host: string; readonly port: number } | undefined;
  /** where Prometheus asks; undefined: nowhere */
  readonly metrics: { readonly host: string; readonly port: number } | undefined;
  /** who executes runs where this process may stop with its answer; undefined: the process itself */
  readonly work: WorkSettings | undefined;
  /** absolute path of the policy */
  readonly policyFile: string | undefined;
  /** who is told what becomes of runs; paths relative to the file */
  readonly notify: readonly NotifyText[];
  readonly targets: ReadonlyMap<string, TargetSettings>;
}

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
    listen: text.listen === undefined ? undefined : parseListen(text.listen),
    work: text.work,
    metrics: text.metrics === undefined ? undefined : parseListen(text.metrics),
    policyFile: text.policy === undefined ? undefined : resolve(folder, text.policy),
    notify: text.notify,
    targets: new Map(Object.keys(text.targets).map((name) => [name, settingsOf(name, text, folder)])),
  };
}

/**
 * A target from flags and variables over the configuration file. `DATABASE_URL` comes last: it is often set for
 * an application, and must not lead a named target to another database.
 *
 * @param config - where it was read before; else that of the choice is
 * @throws RunnerError `CONFIG`, `UNKNOWN_TARGET`, `UNSIGNED_REFUSED`
 */
export async function chooseSettings(
  choice: TargetChoice,
  variables: Variables,
  config?: Config,
): Promise<TargetSettings> {
  const { target } = choice;
  const base =
    target === undefined ? undefined : namedTarget(target, config ?? (await loadConfig(choice.config)));
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
    isPaused: base?.isPaused ?? false,
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

/**
 * A target of the configuration.
 *
 * @throws RunnerError `UNKNOWN_TARGET`
 */
export function namedTarget(name: string, config: Config): TargetSettings {
  const found = config.targets.get(name);
  if (found === undefined) throw unknownTarget(name, config);
  return found;
}

/** Says which targets there are, or which one was meant. */
export function unknownTarget(
  name: string,
  { targets, file }: Pick<Config, "targets" | "file">,
): RunnerError {
  const known = [...targets.keys()];
  const meant = nearest(name, known);
  return new RunnerError("UNKNOWN_TARGET", `target "${name}" is not in ${file}`, {
    hint: meant === undefined ? `there are ${known.join(", ")}` : `did you mean ${meant}?`,
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
  const written = writtenUrl(choice, base === undefined && fallback !== "" ? fallback : undefined);
  const url = written ?? base?.url;
  if (url === undefined) return undefined;
  const password = writtenPassword(choice) ?? (written === undefined ? base?.password : undefined);
  const direct =
    choice.directDatabase === undefined
      ? written === undefined
        ? base?.direct
        : undefined
      : { url: { kind: "text" as const, url: choice.directDatabase }, password };
  return { url, password, schema: choice.schema ?? base?.schema, direct };
}

function writtenUrl(
  { database, databaseSecret }: TargetChoice,
  fallback: string | undefined,
): UrlSettings | undefined {
  if (database !== undefined && databaseSecret !== undefined)
    throw new RunnerError("USAGE", "--database and --database-secret do not go together");
  if (databaseSecret !== undefined) return { kind: "secret", name: databaseSecret };
  const url = database ?? fallback;
  return url === undefined ? undefined : { kind: "text", url };
}

function writtenPassword(choice: TargetChoice): PasswordSettings | undefined {
  const { passwordFile, passwordSecret, databaseIam } = choice;
  if ([passwordFile, passwordSecret, databaseIam].filter((given) => given !== undefined).length > 1)
    throw new RunnerError(
      "USAGE",
      "of --password-file, --password-secret and --database-iam only one says the password",
    );
  if (passwordFile !== undefined) return { kind: "file", path: passwordFile };
  if (passwordSecret !== undefined) return { kind: "secret", name: passwordSecret };
  return databaseIam === undefined ? undefined : { kind: "iam", platform: databaseIam, endpoint: undefined };
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
