import { readFileSync } from "node:fs";

/** This program's version, from its package file: one folder up, in a checkout and in the published package alike. */
export function version(): string {
  const text = readFileSync(new URL("../package.json", import.meta.url), "utf8");
  return /"version":\s*"([^"]+)"/.exec(text)?.[1] ?? "0.0.0";
}
