import { RunnerError } from "../../src/error.ts";
import { randomOf } from "../crash/random.ts";
import { mutate } from "./mutate.ts";
import { shrink } from "./shrink.ts";
import type { Fault, Finding, Subject } from "./subject.ts";

/** Which inputs: the same seed and index always make the same one. */
export interface Cases {
  readonly seed: number;
  readonly from: number;
  readonly count: number;
  /** of the processor, what no input may take three times in a row; {@link maxMs} unless a busy machine is to be allowed for */
  readonly maxMs?: number;
  /** told before each case, so that somebody else can say which one never ended */
  begin?(index: number): void;
}

/** What became of the inputs. */
export interface Outcome {
  cases: number;
  accepted: number;
  /** by code */
  readonly refused: Record<string, number>;
  /** of the processor, of the slowest input that was measured */
  slowestMs: number;
  readonly findings: Finding[];
}

/** Of the processor: a hundred times what the dearest of these parsers takes for such an input. */
const maxMs = 250;
/** A message is for one line of a log. */
const maxMessage = 16_384;
const unprintable = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/u;
/** One defect is found by many inputs. */
const maxFindings = 5;

/** Feeds the subject with mutated inputs, and says which ones it did not get right. */
export async function runCases(subject: Subject, cases: Cases): Promise<Outcome> {
  const outcome: Outcome = { cases: 0, accepted: 0, refused: {}, slowestMs: 0, findings: [] };
  const seen = new Set<string>();
  const bound = cases.maxMs ?? subject.maxMs ?? maxMs;
  for (let index = cases.from; index < cases.from + cases.count; index++) {
    cases.begin?.(index);
    const input = inputOf(subject, cases.seed, index);
    const began = performance.now();
    const result = await judge(subject, input);
    const took = performance.now() - began;
    outcome.cases++;
    if (result.kind === "accepted") outcome.accepted++;
    if (result.kind === "refused") outcome.refused[result.code] = (outcome.refused[result.code] ?? 0) + 1;
    let fault = result.kind === "fault" ? result : undefined;
    if (took > bound / 2 && fault === undefined) {
      const cpuMs = await leastCpuMs(subject, input);
      outcome.slowestMs = Math.max(outcome.slowestMs, cpuMs);
      if (cpuMs > bound)
        fault = { kind: "fault", fault: "slow", what: `${Math.round(cpuMs)} ms for ${input.length} bytes` };
    } else outcome.slowestMs = Math.max(outcome.slowestMs, took);
    if (fault === undefined) continue;
    const same = fault.fault === "slow" ? "slow" : `${fault.fault} ${fault.what}`;
    if (seen.has(same) || seen.size >= maxFindings) continue;
    seen.add(same);
    const smallest =
      fault.fault === "slow"
        ? input
        : await shrink(input, async (smaller) => {
            const again = await judge(subject, smaller);
            return again.kind === "fault" && again.fault === fault.fault && again.what === fault.what;
          });
    outcome.findings.push({
      subject: subject.name,
      fault: fault.fault,
      what: fault.what,
      seed: cases.seed,
      index,
      input: smallest,
    });
  }
  return outcome;
}

/** The input of one case. */
export function inputOf({ corpus, words = [], maxBytes }: Subject, seed: number, index: number): Buffer {
  const random = randomOf(Math.imul(seed, 0x9e37_79b1) ^ Math.imul(index + 1, 0x85eb_ca6b));
  return mutate(random, corpus, words).subarray(0, maxBytes);
}

type Judged =
  | { readonly kind: "accepted" }
  | { readonly kind: "refused"; readonly code: string }
  | { readonly kind: "fault"; readonly fault: Fault; readonly what: string };

/** Reads one input, and judges what came of it. */
export async function judge(subject: Subject, input: Buffer): Promise<Judged> {
  try {
    const flaw = await subject.read(input);
    return flaw === undefined ? { kind: "accepted" } : { kind: "fault", fault: "accepted", what: flaw };
  } catch (error) {
    return judgeError(error);
  }
}

function judgeError(error: unknown): Judged {
  if (!(error instanceof RunnerError)) return { kind: "fault", fault: "crashed", what: describe(error) };
  if (error.code === "INTERNAL")
    return { kind: "fault", fault: "crashed", what: `INTERNAL: ${describe(error.cause)}` };
  if (unprintable.test(error.message + (error.hint ?? "")))
    return {
      kind: "fault",
      fault: "told too much",
      what: `${error.code} with what a terminal takes for a command`,
    };
  if (error.message.length + (error.hint?.length ?? 0) > maxMessage)
    return { kind: "fault", fault: "told too much", what: `${error.code} repeats its input at length` };
  return { kind: "refused", code: error.code };
}

/** Without what changes from input to input. */
function describe(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const frame = /\((?:file:\/\/)?[^()]*\/((?:src|node_modules)\/[^():]+)/.exec(error.stack ?? "")?.[1] ?? "";
  return `${error.name} in ${frame}`;
}

async function leastCpuMs(subject: Subject, input: Buffer): Promise<number> {
  let least = Infinity;
  for (let round = 0; round < 3; round++) {
    const before = process.threadCpuUsage();
    await judge(subject, input);
    const { user, system } = process.threadCpuUsage(before);
    least = Math.min(least, (user + system) / 1_000);
  }
  return least;
}
