import type { Declaration } from "../run/declare.ts";
import type { DoneByHand, Place } from "../run/by-hand.ts";
import type { RunOptions } from "../runner.ts";
import { whoAmI } from "./change.ts";
import { chooseTarget } from "./flags.ts";
import { openReporter } from "./reporter.ts";
import type { Invocation } from "./verb.ts";

/** Opens a database and lets `act` do something to the stream that is meant, which the audit log records; needs no source. */
export async function doByHand<T>(
  invocation: Invocation,
  reason: string,
  act: (by: Declaration, place: Place, options: RunOptions) => Promise<DoneByHand<T>>,
): Promise<DoneByHand<T> & { readonly stream: string }> {
  const { context, output, signal } = invocation;
  const wiring = await context.wire();
  const choice = chooseTarget(invocation);
  await using opened = await wiring.openDatabase(choice);
  const { driver, stream } = opened;
  const reporter = await openReporter(output);
  try {
    const by = {
      reason,
      caller: { issuer: "cli", subject: whoAmI(), rule: null },
      trigger: "cli",
    } as const;
    const place = { name: choice.target ?? stream, stream, driver };
    const options = { signal, emit: reporter.emit, now: () => new Date() };
    return { ...(await act(by, place, options)), stream };
  } finally {
    reporter.end();
  }
}
