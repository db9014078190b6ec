import type { Variables } from "../cli/context.ts";
import { RunnerError } from "../error.ts";
import type { Backup } from "../hook/backup.ts";
import type { Engine } from "../migration/migration.ts";
import { layout } from "../release/layout.ts";
import type { RunObserver } from "../run/observer.ts";
import type { ServiceDatabase, WatchedObject } from "../run/target.ts";
import type { Target } from "../runner.ts";
import { parseLocation } from "../source/location.ts";
import { lazyDriver, lazyReleases, onceOpen } from "./lazy-clients.ts";
import { accessTo, engineOfAccess, openDatabase, streamOf } from "./open-database.ts";
import { openReleases, sourceOf } from "./open-releases.ts";
import { defaultEnvironment, type TargetSettings } from "./settings.ts";

/** What of a target is not in its own settings. */
export interface TargetSurroundings {
  readonly variables: Variables;
  readonly directions: "up" | "both";
  /** targets of the same configuration, asked for when a migration depends on another service */
  others(): Promise<ReadonlyMap<string, TargetSettings>>;
  /** of `openObservers`; whoever opened them flushes them */
  readonly observers?: readonly RunObserver[];
}

/**
 * A target with its clients; nothing has been asked of a server yet.
 *
 * @throws RunnerError `USAGE` for what is missing, `UNSIGNED_REFUSED`, and what the trust's files are refused for
 */
export async function openTarget(
  settings: TargetSettings,
  surroundings: TargetSurroundings,
): Promise<Target> {
  const access = await accessTo(settings, surroundings.variables);
  const stream = settings.stream ?? (await streamOf(access));
  const engine = engineOfAccess(access);
  assertEngine(settings, engine);
  const clients = {
    releases: await releasesOf(settings, engine, stream, surroundings),
    driver: await openDatabase(settings, access, surroundings.variables),
  };
  return targetOf(settings, stream, clients, surroundings);
}

/**
 * A target of the configuration whose clients are opened when they are first asked for something: for a process that
 * knows of many targets and is needed for one. What is wrong with its URL or trust is thrown then, each time anew.
 *
 * @throws RunnerError `CONFIG` - its backup cannot be used
 */
export function lazyTarget(settings: TargetSettings, surroundings: TargetSurroundings): Promise<Target> {
  const { engine, stream } = settings;
  if (engine === undefined || stream === undefined)
    throw new RunnerError("INTERNAL", "a target of the configuration has no engine or no stream");
  // Kept when the driver is closed: a secret need not be fetched again for each connection.
  const access = onceOpen(() => accessTo(settings, surroundings.variables));
  const clients = {
    releases: lazyReleases(
      { kind: settings.trust?.kind === "unsigned" ? "plain" : "signed", stream, url: sourceOf(settings) },
      () => releasesOf(settings, engine, stream, surroundings),
    ),
    driver: lazyDriver(`${engine}:`, async () => {
      const known = await access.get();
      assertEngine(settings, engineOfAccess(known));
      return openDatabase(settings, known, surroundings.variables);
    }),
  };
  return targetOf(settings, stream, clients, surroundings);
}

async function targetOf(
  settings: TargetSettings,
  stream: string,
  clients: Pick<Target, "driver" | "releases">,
  surroundings: TargetSurroundings,
): Promise<Target> {
  const { orphans, onFailure, dependencies, allowsBreaking, isPaused } = settings;
  const { variables, others, observers = [] } = surroundings;
  const backup = await backupOf(settings, variables);
  const watched = watchedBy(settings);
  return {
    name: settings.name ?? stream,
    stream,
    environment: settings.environment ?? defaultEnvironment,
    ...clients,
    limits: settings.limits,
    ...(orphans === undefined ? {} : { orphans }),
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(dependencies === undefined ? {} : { dependencies }),
    allowsBreaking,
    isPaused,
    openService: async (service) => openService(service, settings, await others(), variables),
    ...(backup === undefined ? {} : { backup }),
    ...(watched === undefined ? {} : { watched }),
    ...(observers.length === 0 ? {} : { observers }),
  };
}

async function backupOf({ backup }: TargetSettings, variables: Variables): Promise<Backup | undefined> {
  if (backup === undefined) return undefined;
  const { openBackup } = await import("./open-backup.ts");
  return openBackup(backup, variables);
}

function releasesOf(
  settings: TargetSettings,
  engine: Engine,
  stream: string,
  { variables, directions }: TargetSurroundings,
): Promise<Target["releases"]> {
  const wanted = settings.onFailure === "rollback" ? "both" : directions;
  return openReleases(settings, engine, { stream, directions: wanted, variables });
}

/** What is written last with every release, so that one event a release is enough. */
function watchedBy(settings: TargetSettings): WatchedObject | undefined {
  if (settings.trust?.kind === "unsigned") return undefined;
  const location = parseLocation(sourceOf(settings));
  if (location.kind === "folder") return undefined;
  return { provider: location.kind, bucket: location.bucket, key: `${location.prefix}${layout.head}` };
}

async function openService(
  service: string,
  asking: TargetSettings,
  targets: ReadonlyMap<string, TargetSettings>,
  variables: Variables,
): Promise<ServiceDatabase> {
  const { findService } = await import("./services.ts");
  const { name, settings } = findService(service, asking, targets);
  const driver = await openDatabase(settings, await accessTo(settings, variables), variables);
  return {
    target: name,
    stream: settings.stream ?? service,
    driver,
    [Symbol.asyncDispose]: () => driver.close(),
  };
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
