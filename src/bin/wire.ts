import type {
  OpenDatabase,
  OpenReleases,
  OpenTarget,
  TargetChoice,
  Variables,
  Wiring,
} from "../cli/context.ts";
import { engineOf } from "../driver/url.ts";
import { RunnerError } from "../error.ts";
import type { Engine } from "../migration/migration.ts";
import { layout } from "../release/layout.ts";
import type { RunObserver } from "../run/observer.ts";
import type { ServiceDatabase, WatchedObject } from "../run/target.ts";
import type { Target } from "../runner.ts";
import { parseLocation } from "../source/location.ts";
import { openSource } from "../source/open.ts";
import { chooseSettings, chooseStorage, loadConfig, type Config } from "./config.ts";
import { openBackup } from "./open-backup.ts";
import { lastFlushMs, openObservers } from "./open-observers.ts";
import { openDatabase, streamOf, urlOfDatabase } from "./open-database.ts";
import {
  chooseFormat,
  engineToShow,
  openReleases,
  readTrustOf,
  sourceOf,
  storageOf,
} from "./open-releases.ts";
import { defaultEnvironment, type TargetSettings } from "./settings.ts";

/**
 * The command line's clients, built from its flags, these variables and the configuration file.
 *
 * @param warn - told what went wrong beside a run, such as that nobody takes its traces
 */
export function makeWiring(variables: Variables, warn: (message: string) => void = () => undefined): Wiring {
  return {
    async openTarget(choice, directions): Promise<OpenTarget> {
      const settings = await chooseSettings(choice, variables);
      const { observers, flush } = await openObservers({
        variables,
        config: () => configBeside(choice),
        log: ({ fields }) => warn(String(fields["message"])),
        isOneRun: true,
      });
      const opened = await openTarget(
        settings,
        variables,
        directions,
        () => targetsBeside(choice),
        observers,
      );
      // Whoever types the command runs programs of their own; a server would run those of others.
      const target = { ...opened, mayRunCode: true };
      const close = async (): Promise<void> => {
        await Promise.all([target.driver.close(), flush(lastFlushMs)]);
      };
      return { target, [Symbol.asyncDispose]: close };
    },
    async openDatabase(choice: TargetChoice): Promise<OpenDatabase> {
      const settings = await chooseSettings(choice, variables);
      const url = await urlOfDatabase(settings, variables);
      const driver = await openDatabase(settings, url, variables);
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
    async checkPolicy(question) {
      const { checkPolicy } = await import("./check-policy.ts");
      return checkPolicy(question);
    },
    async serve(choice, signal, onListening) {
      const { serve } = await import("./server.ts");
      await serve(
        choice,
        (settings, { targets }, observers) =>
          openTarget(settings, variables, "both", async () => targets, observers),
        variables,
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
 * @param observers - of `openObservers`; whoever opened them flushes them
 * @throws RunnerError `USAGE` for what is missing, `UNSIGNED_REFUSED`, and what the trust's files are refused for
 */
export async function openTarget(
  settings: TargetSettings,
  variables: Variables,
  directions: "up" | "both",
  others: () => Promise<ReadonlyMap<string, TargetSettings>>,
  observers: readonly RunObserver[] = [],
): Promise<Target> {
  const url = await urlOfDatabase(settings, variables);
  const stream = settings.stream ?? (await streamOf(url));
  const { orphans, onFailure, dependencies, allowsBreaking, isPaused, backup } = settings;
  const wanted = onFailure === "rollback" ? "both" : directions;
  const engine = engineOf(url);
  assertEngine(settings, engine);
  const releases = await openReleases(settings, engine, { stream, directions: wanted, variables });
  const watched = watchedBy(settings);
  return {
    name: settings.name ?? stream,
    stream,
    environment: settings.environment ?? defaultEnvironment,
    releases,
    driver: await openDatabase(settings, url, variables),
    limits: settings.limits,
    ...(orphans === undefined ? {} : { orphans }),
    ...(onFailure === undefined ? {} : { onFailure }),
    ...(dependencies === undefined ? {} : { dependencies }),
    allowsBreaking,
    isPaused,
    openService: async (service) => openService(service, settings, await others(), variables),
    ...(backup === undefined ? {} : { backup: await openBackup(backup, variables) }),
    ...(watched === undefined ? {} : { watched }),
    ...(observers.length === 0 ? {} : { observers }),
  };
}

/** What is written last with every release, so that one event a release is enough. */
function watchedBy(settings: TargetSettings): WatchedObject | undefined {
  if (settings.trust?.kind === "unsigned") return undefined;
  const location = parseLocation(sourceOf(settings));
  if (location.kind === "folder") return undefined;
  return { provider: location.kind, bucket: location.bucket, key: `${location.prefix}${layout.head}` };
}

/** The configuration, where the command line names one at all. */
async function configBeside({ target, config }: TargetChoice): Promise<Config | undefined> {
  return target === undefined && config === undefined ? undefined : loadConfig(config);
}

async function targetsBeside(choice: TargetChoice): Promise<ReadonlyMap<string, TargetSettings>> {
  return (await configBeside(choice))?.targets ?? new Map();
}

async function openService(
  service: string,
  asking: TargetSettings,
  targets: ReadonlyMap<string, TargetSettings>,
  variables: Variables,
): Promise<ServiceDatabase> {
  const { findService } = await import("./services.ts");
  const { name, settings } = findService(service, asking, targets);
  const driver = await openDatabase(settings, await urlOfDatabase(settings, variables), variables);
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
