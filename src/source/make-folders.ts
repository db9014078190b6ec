import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { hasCode } from "./folder-write.ts";

/**
 * Makes a folder and those above it, where they are missing.
 *
 * Node's own `recursive` never ends where the system answers ENOENT under a folder that exists, as in /proc.
 */
export async function makeFolders(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (error) {
    if (hasCode(error, "EEXIST")) return;
    if (!hasCode(error, "ENOENT") || dirname(path) === path) throw error;
    await makeFolders(dirname(path));
    await mkdir(path).catch((again: unknown) => {
      if (!hasCode(again, "EEXIST")) throw again;
    });
  }
}
