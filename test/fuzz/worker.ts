/** Runs cases in a thread of its own, so that one that never ends can be ended. */
import { parentPort, workerData } from "node:worker_threads";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { type Cases, type Outcome, runCases } from "./run-cases.ts";
import { subjects } from "./subjects.ts";

/** What a worker is asked for. */
export interface Order extends Pick<Cases, "seed" | "from" | "count"> {
  readonly subject: string;
}

/** What it answers. */
export interface Answer extends Outcome {
  /** bytes in use after the cases, of what a garbage collection leaves */
  readonly heapBytes: number;
  /** what a library has printed, which may be a piece of the input */
  readonly warnings: readonly string[];
}

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;
/** the case that is under way, for whoever waits in vain */
const current = workerData as Int32Array;
const warnings: string[] = [];
process.on("warning", ({ message }) => warnings.push(message));

parentPort?.on("message", (order: Order) => {
  void answer(order);
});

async function answer({ subject: name, ...cases }: Order): Promise<void> {
  const subject = subjects.find((each) => each.name === name);
  if (subject === undefined) throw new Error(`nothing here is called ${name}`);
  const outcome = await runCases(subject, { ...cases, begin: (index) => Atomics.store(current, 0, index) });
  collect();
  const { heapUsed, external } = process.memoryUsage();
  const answered: Answer = { ...outcome, heapBytes: heapUsed + external, warnings: warnings.splice(0) };
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  parentPort?.postMessage(answered);
}
