import type {
  OpenDatabase,
  OpenReleases,
  OpenTarget,
  OpenTargets,
  TargetChoice,
  Variables,
  Wiring,
} from "../cli/context.ts";
import { openSource } from "../source/open.ts";
import { chooseSettings, chooseStorage, loadConfig, type Config } from "./config.ts";
import type { Observers } from "./observers.ts";
import { lastFlushMs, openObservers } from "./open-observers.ts";
import { accessTo, openDatabase, streamOf } from "./open-database.ts";
import { chooseFormat, engineToShow, openReleases, readTrustOf, sourceOf } from "./open-releases.ts";
import { openTarget } from "./open-target.ts";
import type { TargetSettings } from "./settings.ts";
import { storageOf } from "./storage.ts";

/**
 * The command line's clients, built from its flags, these variables and the configuration file.
 *
 * @param warn - told what went wrong beside a run, such as that nobody takes its traces
 */
export function makeWiring(variables: Variables, warn: (message: string) => void = () => undefined): Wiring {
  const observersOf = (config: () => Promise<Config | undefined>): Promise<Observers> =>
    openObservers({
      variables,
      config,
      log: ({ fields }) => warn(String(fields["message"])),
      isOneRun: true,
    });
  return {
    async openTarget(choice, directions): Promise<OpenTarget> {
      const settings = await chooseSettings(choice, variables);
      const { observers, flush } = await observersOf(() => configIfThere(choice));
      const others = (): ReturnType<typeof targetsBeside> => targetsBeside(choice);
      const opened = await openTarget(settings, { variables, directions, others, observers });
      // Whoever types the command runs programs of their own; a server would run those of others.
      const target = { ...opened, mayRunCode: true };
      const close = async (): Promise<void> => {
        await Promise.all([target.driver.close(), flush(lastFlushMs)]);
      };
      return { target, [Symbol.asyncDispose]: close };
    },
    async openTargets(choice): Promise<OpenTargets> {
      const config = await loadConfig(choice.config);
      const { observers, flush } = await observersOf(async () => config);
      return {
        names: [...config.targets.keys()],
        async open(name) {
          const settings = await chooseSettings({ ...choice, target: name }, variables, config);
          const others = async (): Promise<Config["targets"]> => config.targets;
          const opened = await openTarget(settings, { variables, directions: "up", others, observers });
          const target = { ...opened, mayRunCode: true };
          return { target, [Symbol.asyncDispose]: () => target.driver.close() };
        },
        [Symbol.asyncDispose]: () => flush(lastFlushMs),
      };
    },
    async openDatabase(choice: TargetChoice): Promise<OpenDatabase> {
      const settings = await chooseSettings(choice, variables);
      const access = await accessTo(settings, variables);
      const driver = await openDatabase(settings, access, variables);
      return {
        driver,
        stream: settings.stream ?? (await streamOf(access)),
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
    async work(choice, signal) {
      const { workOn } = await import("./work.ts");
      return workOn(choice, variables, signal);
    },
    async serve(choice, signal, onListening) {
      const { serve } = await import("./server.ts");
      await serve(
        choice,
        (settings, { targets }, observers) =>
          openTarget(settings, { variables, directions: "both", others: async () => targets, observers }),
        variables,
        signal,
        onListening,
      );
    },
  };
}

/** The configuration, where the command line names one at all. */
async function configBeside({ target, config }: TargetChoice): Promise<Config | undefined> {
  return target === undefined && config === undefined ? undefined : loadConfig(config);
}

/** For what stands beside a run, such as who is told of it: the image names a file that need not be there. */
async function configIfThere(choice: TargetChoice): Promise<Config | undefined> {
  try {
    return await configBeside(choice);
  } catch (error) {
    const cause = error instanceof Error ? error.cause : undefined;
    const isAbsent = cause instanceof Error && "code" in cause && cause.code === "ENOENT";
    if (isAbsent && choice.target === undefined) return undefined;
    throw error;
  }
}

async function targetsBeside(choice: TargetChoice): Promise<ReadonlyMap<string, TargetSettings>> {
  return (await configBeside(choice))?.targets ?? new Map();
}
