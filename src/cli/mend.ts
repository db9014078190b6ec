import type { Emit } from "../executor/event.ts";
import type { AuditLink } from "../history/audit.ts";
import type { Declaration } from "../run/declare.ts";
import type { RunOptions, Target } from "../runner.ts";
import { whoAmI } from "./change.ts";
import { chooseTarget } from "./flags.ts";
import { openReporter } from "./reporter.ts";
import type { Invocation } from "./verb.ts";

/** Opens a target and lets `declare` record a person's decision about it; gives the decision's link in the audit log too. */
export async function mend<T>(
  invocation: Invocation,
  reason: string,
  declare: (declaration: Declaration, target: Target, options: RunOptions) => Promise<T>,
): Promise<{ readonly result: T; readonly audit: AuditLink | null }> {
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
    let audit: AuditLink | null = null;
    const emit: Emit = (event) => {
      if (event.kind === "audit") audit = { seq: event.seq, sha256: event.sha256 };
      reporter.emit(event);
    };
    const result = await declare(declaration, opened.target, { signal, emit, now: () => new Date() });
    return { result, audit };
  } finally {
    reporter.end();
  }
}
