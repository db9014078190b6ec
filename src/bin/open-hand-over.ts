import type { HandOver } from "../dispatch/hand-over.ts";
import type { WorkSettings } from "./settings.ts";

/** Who goes on with what this process has no time for; undefined where nobody is named: whoever looks next. */
export async function openHandOver(work: WorkSettings | undefined): Promise<HandOver | undefined> {
  if (work === undefined) return undefined;
  const { cloudRunHandOver } = await import("../host/cloud-run-hand-over.ts");
  return cloudRunHandOver(work.cloudRunJob);
}
