import { readFileSync, statSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { finish, type Command } from "../measure.ts";

/** Loaded before the program: writes down every file that it loads. */
const recorder = `import { registerHooks } from "node:module";
import { writeFileSync } from "node:fs";
const loaded = [];
registerHooks({ load(url, context, next) { loaded.push(url); return next(url, context); } });
process.on("exit", () => writeFileSync(process.env.LOADED_FILES, JSON.stringify(loaded)));`;

/** How many files a run of Node loads as modules, and how large they are; `folder` is for notes. */
export async function filesLoaded(
  command: Command,
  folder: string,
): Promise<{ readonly files: number; readonly bytes: number }> {
  const out = path.join(folder, "loaded.json");
  const hooks = `data:text/javascript,${encodeURIComponent(recorder)}`;
  await finish({
    ...command,
    args: ["--import", hooks, ...command.args],
    env: { ...command.env, LOADED_FILES: out },
  });
  const urls = new Set(v.parse(v.array(v.string()), JSON.parse(readFileSync(out, "utf8"))));
  const files = [...urls].filter((url) => url.startsWith("file:")).map((url) => fileURLToPath(url));
  return { files: files.length, bytes: files.reduce((sum, file) => sum + statSync(file).size, 0) };
}
