import { Worker } from "node:worker_threads";

import { inputOf, type Outcome } from "./run-cases.ts";
import type { Finding, Subject } from "./subject.ts";
import type { Answer, Order } from "./worker.ts";

/** What became of all cases of one parser. */
export interface SubjectResult extends Outcome {
  readonly subject: string;
  /** wall clock, so other work on the machine is in it */
  readonly usPerCase: number;
}

/** Cases between two answers of a worker. */
const portion = 20_000;
/** One case that has not ended by then never will. */
const hungMs = 120_000;
/** What may be in use after many cases besides what was after the first ones. */
const maxGrowthBytes = 48 * 1_048_576;

/** Runs a parser's cases in a worker, portion by portion; one that hangs is ended and told. */
export async function runSubject(
  subject: Subject,
  { seed, cases }: { readonly seed: number; readonly cases: number },
): Promise<SubjectResult> {
  const began = performance.now();
  const total = {
    cases: 0,
    accepted: 0,
    refused: {} as Record<string, number>,
    slowestMs: 0,
    findings: [] as Finding[],
  };
  await using worker = startWorker();
  const tell = (fault: Finding["fault"], what: string, index: number, input: Buffer): void => {
    if (total.findings.length < 20)
      total.findings.push({ subject: subject.name, fault, what, seed, index, input });
  };
  let firstHeap: number | undefined;
  let growth = 0;
  for (let from = 0; from < cases; from += portion) {
    const count = Math.min(portion, cases - from);
    const answer = await worker.ask({ subject: subject.name, seed, from, count });
    if (typeof answer === "number") {
      tell("hung", `not done after ${hungMs / 1_000} s`, answer, inputOf(subject, seed, answer));
      break;
    }
    total.cases += answer.cases;
    total.accepted += answer.accepted;
    for (const [code, times] of Object.entries(answer.refused))
      total.refused[code] = (total.refused[code] ?? 0) + times;
    total.slowestMs = Math.max(total.slowestMs, answer.slowestMs);
    for (const found of answer.findings)
      if (!total.findings.some(({ fault, what }) => fault === found.fault && what === found.what))
        tell(found.fault, found.what, found.index, Buffer.from(found.input));
    for (const warning of answer.warnings)
      tell("told too much", `printed: ${warning}`, from, Buffer.alloc(0));
    firstHeap ??= answer.heapBytes;
    growth = answer.heapBytes - firstHeap;
  }
  if (growth > maxGrowthBytes)
    tell("kept memory", `${Math.round(growth / 1_048_576)} MiB more than at first`, 0, Buffer.alloc(0));
  return {
    ...total,
    subject: subject.name,
    usPerCase: ((performance.now() - began) * 1_000) / Math.max(1, total.cases),
  };
}

/** A worker that answers one order at a time; a number is the case that it hangs in. */
function startWorker(): AsyncDisposable & { ask(order: Order): Promise<Answer | number> } {
  const current = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(new URL("worker.ts", import.meta.url), { workerData: current });
  return {
    async ask(order) {
      const { promise, resolve, reject } = Promise.withResolvers<Answer | number>();
      let last = { index: -1, at: performance.now() };
      const watch = setInterval(() => {
        const index = Atomics.load(current, 0);
        if (index !== last.index) last = { index, at: performance.now() };
        else if (performance.now() - last.at > hungMs) resolve(index);
      }, 1_000);
      worker.once("message", resolve);
      worker.once("error", reject);
      try {
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
        worker.postMessage(order);
        return await promise;
      } finally {
        clearInterval(watch);
        worker.off("message", resolve).off("error", reject);
      }
    },
    [Symbol.asyncDispose]: async () => void (await worker.terminate()),
  };
}
