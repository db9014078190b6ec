import { resolve } from "node:path";
import { RunnerError } from "../error.ts";
import type { ConfigText } from "./config-schema.ts";
import { parseEndpoint } from "./endpoint.ts";
import { defaultBackupMs, defaultLimits } from "./settings.ts";
import type {
  AccessSettings,
  BackupSettings,
  PasswordSettings,
  StorageSettings,
  TargetSettings,
  UrlSettings,
} from "./settings.ts";

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

/** A target of a checked file; its paths become absolute. */
export function settingsOf(name: string, config: ConfigText, folder: string): TargetSettings {
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
      ...accessIn(database, folder),
      schema: database.schema,
      direct: database.direct === undefined ? undefined : accessIn(database.direct, folder),
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
    isPaused: target.paused,
    backup: backupIn(target.backup, folder),
    storage: mergeStorage(mergeStorage({ s3: {}, gcs: {} }, config), target),
  };
}

type AccessText = NonNullable<ConfigText["targets"][string]["database"]["direct"]>;

function accessIn(text: AccessText, folder: string): AccessSettings {
  return { url: urlIn(text, folder), password: passwordIn(text, folder) };
}

function urlIn({ url, urlFile, urlEnv, urlSecret }: AccessText, folder: string): UrlSettings {
  if (urlFile !== undefined) return { kind: "file", path: resolve(folder, urlFile) };
  if (urlEnv !== undefined) return { kind: "variable", name: urlEnv };
  if (urlSecret !== undefined) return { kind: "secret", name: urlSecret };
  return { kind: "text", url: url ?? "" };
}

function passwordIn(text: AccessText, folder: string): PasswordSettings | undefined {
  const { passwordFile, passwordSecret, iam, iamHost } = text;
  if (passwordFile !== undefined) return { kind: "file", path: resolve(folder, passwordFile) };
  if (passwordSecret !== undefined) return { kind: "secret", name: passwordSecret };
  if (iam === undefined) return undefined;
  return {
    kind: "iam",
    platform: iam,
    endpoint: iamHost === undefined ? undefined : parseEndpoint(iamHost),
  };
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

/** What `over` says, and `base` where it says nothing. */
export function mergeStorage(base: StorageSettings, over: StorageText): StorageSettings {
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
