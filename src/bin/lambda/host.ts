import type { Variables } from "../../cli/context.ts";
import type { HandOver } from "../../dispatch/hand-over.ts";
import type { LogRecord } from "../../report/log.ts";
import type { Target } from "../../runner.ts";
import { loadConfig, unknownTarget, type Config } from "../config.ts";
import type { Observers } from "../observers.ts";
import { openObservers } from "../open-observers.ts";
import { lazyTarget } from "../open-target.ts";

/** Where a layer of the function puts its files. */
const defaultConfig = "/opt/lockkeeper/lockkeeper.yaml";

/** One call of the function. */
export interface Invocation {
  /** Lambda's own, `aws_request_id` in the log */
  readonly id: string;
  /** of this function, with the alias that it was called by */
  readonly functionArn: string;
  /** milliseconds until Lambda ends it */
  msLeft(): number;
}

/** What an instance of the function keeps from one invocation to the next. */
export interface LambdaHost {
  readonly config: Config;
  readonly targets: ReadonlyMap<string, Target>;
  readonly observers: Observers;
  handOver(invocation: Invocation): HandOver;
  /** Another function is there to execute runs: this one, whose time is short, begins them there. */
  isFront(invocation: Invocation): boolean;
  log(record: LogRecord): void;
  now(): Date;
  /** Ends connections that are open. */
  disconnect(): Promise<void>;
}

/**
 * Everything that a function is configured with. Its targets open their clients when they are needed.
 *
 * Variables: `LOCKKEEPER_CONFIG`, the configuration's file; `LOCKKEEPER_WORKER_FUNCTION`, name or ARN of the function that
 * executes runs, where that is not this one.
 *
 * @throws RunnerError `CONFIG`
 */
export async function openLambdaHost(
  variables: Variables,
  parts: Pick<LambdaHost, "log" | "now">,
): Promise<LambdaHost> {
  const config = await loadConfig(variables["LOCKKEEPER_CONFIG"] ?? defaultConfig);
  const observers = await openObservers({ variables, config: async () => config, log: parts.log });
  const surroundings = {
    variables,
    directions: "both",
    others: async () => config.targets,
    observers: observers.observers,
  } as const;
  const targets = new Map<string, Target>();
  for (const [name, settings] of config.targets) targets.set(name, await lazyTarget(settings, surroundings));
  const worker = variables["LOCKKEEPER_WORKER_FUNCTION"] || undefined;
  const handOvers = new Map<string, HandOver>();
  return {
    ...parts,
    log: observers.log,
    config,
    targets,
    observers,
    handOver: ({ functionArn }) => ({
      async start(target) {
        const { lambdaHandOver } = await import("../../host/lambda-hand-over.ts");
        const name = worker ?? functionArn;
        const handOver = handOvers.get(name) ?? lambdaHandOver(name);
        handOvers.set(name, handOver);
        await handOver.start(target);
      },
    }),
    isFront: ({ functionArn }) => worker !== undefined && nameOf(worker) !== nameOf(functionArn),
    async disconnect() {
      await Promise.allSettled([...targets.values()].map((target) => target.driver.close()));
    },
  };
}

/** A function's name, of its ARN or of itself, without an alias. */
function nameOf(functionName: string): string {
  return (functionName.split(":function:").at(-1) ?? functionName).split(":")[0] ?? "";
}

/**
 * Milliseconds of an invocation that a run must leave: 3 s of grace for its statement, then to cancel it, record where the
 * run stands, start the next execution and send what observers saw. A server that ignores a cancel is waited for a while
 * where there is the time.
 */
export function marginMs(msLeft: number): number {
  return Math.min(Math.max(msLeft / 5, 6_000), 15_000);
}

/**
 * The target that a message names.
 *
 * @throws RunnerError `UNKNOWN_TARGET`
 */
export function targetNamed(name: string, { targets, config }: LambdaHost): Target {
  const target = targets.get(name);
  if (target === undefined) throw unknownTarget(name, config);
  return target;
}
