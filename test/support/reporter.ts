import type { SerializedError } from "vitest";
import type { Reporter, TestModule } from "vitest/node";
import { notRunNote } from "./parts.ts";

/**
 * The last lines of a run: what was not run and why, then `N passed, N failed` (and how many were skipped) alone on a line.
 *
 * A file that could not be loaded and an error outside of any test count as one failed each.
 */
export default class TotalReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const count = { passed: 0, failed: unhandled.length, skipped: 0 };
    const notRun = new Map<string, number>();
    for (const module of modules) {
      if (module.state() === "failed" && module.errors().length > 0) count.failed += 1;
      for (const suite of module.children.allSuites()) if (suite.errors().length > 0) count.failed += 1;
      for (const test of module.children.allTests()) {
        const result = test.result();
        if (result.state === "passed") count.passed += 1;
        else if (result.state === "failed") count.failed += 1;
        else {
          count.skipped += 1;
          const note = result.state === "skipped" ? result.note : undefined;
          if (note?.startsWith(notRunNote) === true) {
            const line = `${module.relativeModuleId}: ${note}`;
            notRun.set(line, (notRun.get(line) ?? 0) + 1);
          }
        }
      }
    }
    const lines = [...notRun].map(
      ([line, tests]) => `not run: ${line}${tests > 1 ? ` (${tests} tests)` : ""}`,
    );
    const skipped = count.skipped > 0 ? `, ${count.skipped} skipped` : "";
    lines.push(`${count.passed} passed, ${count.failed} failed${skipped}`);
    // After the default reporter's own summary, which is printed in the same turn.
    setImmediate(() => process.stdout.write(`\n${lines.join("\n")}\n`));
  }
}
