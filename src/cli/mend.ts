import type { Declaration } from "../run/declare.ts";
import type { RunOptions, Target } from "../runner.ts";
import { whoAmI } from "./change.ts";
import { chooseTarget } from "./flags.ts";
import { openReporter } from "./reporter.ts";
import type { Invocation } from "./verb.ts";

/** Opens a target and lets `declare` record a person's decision about it. */
export async function mend<T>(
  invocation: Invocation,
  reason: string,
  declare: (declaration: Declaration, target: Target, options: RunOptions) => Promise<T>,
): Promise<T> {
  const { context, output, signal } = invocation;
  const wiring = await context.wire();
  await using opened = await wiring.openTarget(chooseTarget(invocation), "both");
  const reporter = await openReporter(output);
  try {
    const declaration: Declaration = {
      reason,
      caller: { issuer: "cli", subject: whoAmI(), rule: null },
      trigger: "cli",
    };
    return await declare(declaration, opened.target, { signal, emit: reporter.emit, now: () => new Date() });
  } finally {
    reporter.end();
  }
}
