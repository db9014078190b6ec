import type { Reporter } from "../report/sink.ts";
import type { Output } from "./output.ts";

/** The reporter that fits where stderr goes: JSON lines, a bar on a terminal, or lines of words. */
export async function openReporter(output: Output): Promise<Reporter> {
  if (output.isJson) return (await import("../report/lines.ts")).jsonLines(output.stderr, () => new Date());
  if (output.stderr.isTerminal) {
    return (await import("../report/progress.ts")).progressBar(output.stderr, output.isVerbose, () =>
      performance.now(),
    );
  }
  return (await import("../report/lines.ts")).plainLines(output.stderr, output.isVerbose, () =>
    performance.now(),
  );
}
