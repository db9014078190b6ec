import type {
  OpenDatabase,
  OpenReleases,
  OpenTarget,
  TargetChoice,
  Variables,
  Wiring,
} from "../cli/context.ts";
import { readSecretFile } from "../cli/secret-file.ts";
import type { Driver } from "../driver/driver.ts";
import { openDriver } from "../driver/open.ts";
import { databaseNameOf, engineOf, withPassword } from "../driver/url.ts";
import { RunnerError } from "../error.ts";
import type { Backup } from "../hook/backup.ts";
import type { Header } from "../hook/webhook.ts";
import { detectedFormat, isFormatName, namedFormat } from "../migration/format/choose-format.ts";
import type { ChooseFormat } from "../migration/format/choose-format.ts";
import { formatNames } from "../migration/format/format.ts";
import type { Engine } from "../migration/migration.ts";
import type { ReleaseProvider } from "../release/release.ts";
import type { Trust } from "../release/trust.ts";
import type { ServiceDatabase } from "../run/target.ts";
import type { Target } from "../runner.ts";
import { parseLocation } from "../source/location.ts";
import { openSource } from "../source/open.ts";
import { protectedEnvironments } from "../run/usable.ts";
import { chooseSettings, chooseStorage, loadConfig } from "./config.ts";
import type {
  BackupSettings,
  DatabaseSettings,
  StorageSettings,
  TargetSettings,
  TrustSettings,
  UrlSettings,
} from "./settings.ts";

/** For which a release is published, and a target is, unless told otherwise. */
const defaultEnvironment = "default";
/** for the names of a folder's files */
const listingMs = 120_000;

/** The command line's clients, built from its flags, these variables and the configuration file. */
export function makeWiring(variables: Variables): Wiring {
  return {
    async openTarget(choice, directions): Promise<OpenTarget> {
      const settings = await chooseSettings(choice, variables);
      const opened = await openTarget(settings, variables, directions, () => targetsBeside(choice));
      // Whoever types the command runs programs of their own; a server would run those of others.
      const target = { ...opened, mayRunCode: true };
      return { target, [Symbol.asyncDispose]: () => target.driver.close() };
    },
    async openDatabase(choice: TargetChoice): Promise<OpenDatabase> {
      const settings = await chooseSettings(choice, variables);
      const database = databaseOf(settings);
      const url = await readUrl(database, variables);
      const driver = await openWithPooler(database, url, variables);
      return {
        driver,
        stream: settings.stream ?? (await streamOf(url)),
        [Symbol.asyncDispose]: () => driver.close(),
      };
    },
    async openReleases(choice: TargetChoice): Promise<OpenReleases> {
      const settings = await chooseSettings(choice, variables);
      const { stream, environment, trust } = settings;
      if (trust?.kind === "unsigned") {
        return {
          kind: "plain",
          releases: await openReleases(settings, await engineToShow(settings, variables), {
            stream: stream ?? "plain",
            directions: "both",
            variables,
          }),
        };
      }
      const source = await openSource(sourceOf(settings), storageOf(settings.storage, variables));
      return {
        kind: "signed",
        source,
        trust: trust === undefined ? undefined : await readTrustOf(trust),
        stream,
        environment,
      };
    },
    openSource: (url, storage, folder) =>
      openSource(url, {
        ...storageOf(chooseStorage(storage), variables),
        ...(folder === undefined ? {} : { folder }),
      }),
    async openOtherReleases(config, stream) {
      const { targets } = await loadConfig(config);
      const others = [...targets.values()].filter((target) => target.stream !== stream);
      const byUrl = new Map(others.map((settings) => [sourceOf(settings), settings]));
      return Promise.all(
        [...byUrl].map(([url, { storage }]) => openSource(url, storageOf(storage, variables))),
      );
    },
    chooseFormat: (choice, engine) => Promise.resolve(chooseFormat(choice, engine, variables)),
    async serve(choice, signal, onListening) {
      const { serve } = await import("./server.ts");
      await serve(
        choice,
        (settings, { targets }) => openTarget(settings, variables, "both", async () => targets),
        signal,
        onListening,
      );
    },
  };
}

/**
 * A target with its clients; nothing has been asked of a server yet.
 *
 * @param others - targets of the same configuration, asked for when a migration depends on another service
 * @throws RunnerError `USAGE` for what is missing, `UNSIGNED_REFUSED`, and what the trust's files are refused for
 */
export async function openTarget(
  settings: TargetSettings,
  variables: Variables,
  directions: "up" | "both",
  others: () => Promise<ReadonlyMap<string, TargetSettings>>,
): Promise<Target> {
  const database = databaseOf(settings);
  const url = await readUrl(database, variables);
  const stream = settings.stream ?? (await streamOf(url));
  const { orphans, onFailure, dependencies, allowsBreaking, backup } = settings;
  const wanted = onFailure === "rollback" ? "both" : directions;
  const engine = engineOf(url);
  assertEngine(settings, engine);
  const releases = await openReleases(settings, engine, { stream, directions: wanted, variables });
  return {
    name: settings.name ?? stream,
    stream,
    environment: settings.environment ?? defaultEnvironment,
    releases,
    driver: await openWithPooler(database, url, variables),
    limits: settings.limits,
    ...(orphans === undefined ? {} : { orphans }),
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(dependencies === undefined ? {} : { dependencies }),
    allowsBreaking,
    openService: async (service) => openService(service, settings, await others(), variables),
    ...(backup === undefined ? {} : { backup: await openBackup(backup, variables) }),
  };
}

/** The configuration's targets, where the command line names a configuration at all. */
async function targetsBeside({ target, config }: TargetChoice): Promise<ReadonlyMap<string, TargetSettings>> {
  return target === undefined && config === undefined ? new Map() : (await loadConfig(config)).targets;
}

async function openService(
  service: string,
  asking: TargetSettings,
  targets: ReadonlyMap<string, TargetSettings>,
  variables: Variables,
): Promise<ServiceDatabase> {
  const { findService } = await import("./services.ts");
  const { name, settings } = findService(service, asking, targets);
  const database = databaseOf(settings);
  const url = await readUrl(database, variables);
  const driver = await openWithPooler(database, url, variables);
  return {
    target: name,
    stream: settings.stream ?? service,
    driver,
    [Symbol.asyncDispose]: () => driver.close(),
  };
}

/** The command gets this process's own environment: what it may know of the database is its user's to say. */
async function openBackup(settings: BackupSettings, variables: Variables): Promise<Backup> {
  const { timeoutMs } = settings;
  if (settings.kind === "command") {
    const { commandBackup } = await import("../hook/command.ts");
    return commandBackup(settings.argv, { timeoutMs, variables });
  }
  const { parseHeader, webhookBackup } = await import("../hook/webhook.ts");
  const { url, headerFile } = settings;
  if (headerFile === undefined) return webhookBackup(url, { timeoutMs });
  const header = async (): Promise<Header> => {
    const parsed = parseHeader(await readSecretFile(headerFile, "the backup's header file"));
    if (parsed !== undefined) return parsed;
    throw new RunnerError("CONFIG", `the backup's header file "${headerFile}" does not hold one header`, {
      hint: "write one line, such as Authorization: Bearer …",
    });
  };
  // Now, so that a wrong file is found when the program starts and not in the middle of the night.
  await header();
  return webhookBackup(url, { timeoutMs, header });
}

/** A target's configuration names its engine, so that what it is for can be read there; its URL may come from elsewhere. */
function assertEngine({ name, engine }: TargetSettings, ofUrl: Engine): void {
  if (engine === undefined || engine === ofUrl) return;
  throw new RunnerError(
    "CONFIG",
    `target "${name ?? ""}" is for ${engine}, and its database URL for ${ofUrl}`,
    {
      hint: "correct its engine or its database in the configuration",
    },
  );
}

/** Of files that no database is named for: what the configuration says, or what they look like. */
async function engineToShow(settings: TargetSettings, variables: Variables): Promise<Engine> {
  if (settings.engine !== undefined) return settings.engine;
  if (settings.database !== undefined) return engineOf(await readUrl(settings.database, variables));
  const { engineOfFolder } = await import("../release/folder-engine.ts");
  const source = await openSource(sourceOf(settings), storageOf(settings.storage, variables));
  return engineOfFolder(source, AbortSignal.timeout(listingMs));
}

async function openReleases(
  settings: TargetSettings,
  engine: Engine,
  {
    stream,
    directions,
    variables,
  }: { readonly stream: string; readonly directions: "up" | "both"; readonly variables: Variables },
): Promise<ReleaseProvider> {
  const { environment = defaultEnvironment, trust } = settings;
  const url = sourceOf(settings);
  if (trust === undefined) {
    throw new RunnerError("USAGE", "no key is trusted: --trust <file> (or LOCKKEEPER_TRUST) is missing", {
      hint: "name the public key that signs the releases; for plain files without a signature say --unsigned",
    });
  }
  if (trust.kind === "unsigned" && protectedEnvironments.has(environment)) {
    throw new RunnerError("UNSIGNED_REFUSED", `environment "${environment}" takes signed releases only`, {
      hint: 'publish the folder as a signed release with "lockkeeper publish" and name its key with --trust',
    });
  }
  const source = await openSource(url, storageOf(settings.storage, variables));
  if (trust.kind === "unsigned") {
    const { plainReleases } = await import("../release/plain.ts");
    return plainReleases({
      source,
      stream,
      environment,
      engine,
      allowLate: settings.allowsLate,
      directions,
      // Who may write a bucket is not who runs this.
      format: chooseFormat(settings, engine, parseLocation(url).kind === "folder" ? variables : undefined),
    });
  }
  const { signedReleases } = await import("../release/signed.ts");
  return signedReleases({ source, stream, environment, engine, trust: await readTrustOf(trust) });
}

async function readTrustOf(settings: Exclude<TrustSettings, { kind: "unsigned" }>): Promise<Trust> {
  const { readTrust, readTrustFiles } = await import("../release/key-file.ts");
  if (settings.kind === "section") return readTrust(settings.value, settings.folder, settings.what);
  const [first, ...rest] = settings.paths;
  if (first === undefined) throw new RunnerError("USAGE", "--trust names no file");
  return readTrustFiles([first, ...rest]);
}

/** The named format, or the one that the files look like. */
function chooseFormat(
  { format, placeholders }: Pick<TargetSettings, "format" | "placeholders">,
  engine: Engine,
  variables: Variables | undefined,
): ChooseFormat {
  const settings = { engine, variables, placeholders };
  if (format === undefined) return detectedFormat(settings);
  if (isFormatName(format)) return namedFormat(format, settings);
  throw new RunnerError("USAGE", `--format: "${format}" is no tool whose files are known`, {
    hint: `known are ${formatNames.join(", ")}`,
  });
}

function sourceOf({ source }: TargetSettings): string {
  if (source !== undefined) return source;
  throw new RunnerError("USAGE", "--source <url> (or LOCKKEEPER_SOURCE) is missing", {
    hint: "name a bucket prefix or a folder, or a target of the configuration with --target",
  });
}

function databaseOf({ database }: TargetSettings): DatabaseSettings {
  if (database !== undefined) return database;
  throw new RunnerError("USAGE", "--database <url> (or LOCKKEEPER_DATABASE, or DATABASE_URL) is missing", {
    hint: "name a database as postgres://user@host:5432/name or mongodb://user@host:27017/name, or a target of the configuration with --target",
  });
}

async function openWithPooler(
  database: DatabaseSettings,
  url: string,
  variables: Variables,
): Promise<Driver> {
  const direct = database.direct === undefined ? undefined : await readUrl(database.direct, variables);
  return openDriver(url, {
    ...(database.schema === undefined ? {} : { schema: database.schema }),
    ...(direct === undefined ? {} : { directUrl: direct }),
  });
}

async function readUrl(
  from: { readonly url: UrlSettings; readonly passwordFile: string | undefined },
  variables: Variables,
): Promise<string> {
  const url = await readUrlText(from.url, variables);
  if (from.passwordFile === undefined) return url;
  return withPassword(url, await readSecretFile(from.passwordFile, "the password file"));
}

async function readUrlText(from: UrlSettings, variables: Variables): Promise<string> {
  switch (from.kind) {
    case "text":
      return from.url;
    case "file":
      return (await readSecretFile(from.path, "the database URL's file")).trim();
    case "variable": {
      const url = variables[from.name];
      if (url !== undefined && url !== "") return url;
      throw new RunnerError("CONFIG", `the variable ${from.name}, which holds the database URL, is not set`);
    }
  }
}

/** A stream is called like its database unless told otherwise. */
async function streamOf(url: string): Promise<string> {
  const database = await databaseNameOf(url);
  if (/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/.test(database)) return database;
  throw new RunnerError("USAGE", "--stream <name> (or LOCKKEEPER_STREAM) is missing", {
    hint: "the database's name cannot be a stream's name: it may hold letters, digits, . _ - only",
  });
}

/** What the usual tools' variables say, where nothing else does; the SDKs find credentials and regions by themselves. */
function storageOf({ s3, gcs }: StorageSettings, variables: Variables): StorageSettings {
  const s3Endpoint = s3.endpoint ?? (variables["AWS_ENDPOINT_URL_S3"] || variables["AWS_ENDPOINT_URL"]);
  const emulator = gcs.endpoint ?? variables["STORAGE_EMULATOR_HOST"];
  return {
    s3: s3Endpoint === undefined || s3Endpoint === "" ? s3 : { ...s3, endpoint: s3Endpoint },
    gcs:
      emulator === undefined || emulator === ""
        ? gcs
        : { ...gcs, endpoint: /^https?:/.test(emulator) ? emulator : `http://${emulator}` },
  };
}
