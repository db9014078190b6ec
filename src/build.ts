import { readFileSync } from "node:fs";

/**
 * This program's version, from its package file: one folder up, in a checkout and in the published package alike. In a
 * bundle that left the file behind it is not known, and nothing depends on it.
 */
export function version(): string {
  return (known ??= read());
}

/** it does not change while we run, and every record of the audit log has it */
let known: string | undefined;

function read(): string {
  try {
    const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
    return /"version":\s*"([^"]+)"/.exec(text)?.[1] ?? "unknown";
  } catch {
    return "unknown";
  }
}
