import { jsonLines, plainLines, withoutRepeats } from "../report/lines.ts";
import type { Reporter } from "../report/sink.ts";
import type { Output } from "./output.ts";

/** The reporter that fits where stderr goes: JSON lines, a bar on a terminal, or lines of words. */
export async function openReporter(output: Output): Promise<Reporter> {
  const reporter = await chooseReporter(output);
  return { ...reporter, emit: withoutRepeats(reporter.emit, () => performance.now()) };
}

async function chooseReporter({ isJson, isVerbose, stderr }: Output): Promise<Reporter> {
  if (stderr.isTerminal && !isJson) {
    return (await import("../report/progress.ts")).progressBar(stderr, isVerbose, () => performance.now());
  }
  return isJson
    ? jsonLines(stderr, () => new Date())
    : plainLines(stderr, isVerbose, () => performance.now());
}
