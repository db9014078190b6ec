import { readFile, readdir, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { RunnerError, toRunnerError } from "../../error.ts";
import { makeFolders } from "../../source/make-folders.ts";
import { choiceFlag, switchFlag, textFlag } from "../flag.ts";
import type { Verb } from "../verb.ts";

const dir = textFlag("dir", {
  placeholder: "<folder>",
  text: "folder of the migrations; made when it is not there",
  fallback: "migrations",
});
const ext = choiceFlag("ext", {
  text: "sql for PostgreSQL, json for MongoDB",
  choices: ["sql", "json"],
  fallback: "sql",
});
const seq = switchFlag("seq", {
  text: "number on from the folder's highest version, in six digits; the default",
});
const timestamp = switchFlag("timestamp", {
  text: "the UTC time as version, 20060102150405, instead of a number",
});

/** Characters of a title that leave room for a long version and `.down.json` within a label's 200. */
const maxTitle = 150;

/** `lockkeeper create NAME` */
export const create: Verb = {
  name: "create",
  about:
    "Makes the up and the down file of a new migration, numbered after the folder's last. Never overwrites a file.",
  parameters: [
    {
      name: "name",
      text: "what the migration does: letters, digits, _ . + -; spaces become _",
      isRequired: true,
    },
  ],
  flags: [dir, ext, seq, timestamp],
  examples: [
    { line: "lockkeeper create add_users", means: "migrations/000001_add_users.up.sql and .down.sql" },
    {
      line: "lockkeeper create 'add users' --dir db --timestamp",
      means: "db/20261120101500_add_users.up.sql and .down.sql",
    },
  ],
  exits: [0, 2, 20],
  async run({ output, get, word }) {
    if (get(seq) && get(timestamp))
      throw new RunnerError("USAGE", "--seq and --timestamp do not go together");
    const { nextSequence, nextTimestamp } = await import("../numbering.ts");
    const title = titleOf(word("name") ?? "");
    const folder = get(dir);
    const names = await listFolder(folder);
    await assertOwnKind(folder, names);
    const version = get(timestamp) ? nextTimestamp(names, new Date()) : nextSequence(names);
    const files = (["up", "down"] as const).map((direction) => ({
      path: join(folder, `${version}_${title}.${direction}.${get(ext)}`),
      // empty: what nobody has written yet must be refused when it is applied, and a comment would be applied as it is
      text: get(ext) === "sql" ? "" : "[\n]\n",
    }));
    await writeNew(files);
    const paths = files.map((file) => file.path);
    output.result({ version, files: paths }, () => paths.join("\n"));
    return 0;
  },
};

function titleOf(name: string): string {
  const title = name.trim().replace(/\s+/g, "_");
  if (title.length <= maxTitle && /^[A-Za-z0-9._+-]+$/.test(title)) return title;
  throw new RunnerError(
    "USAGE",
    `name: ${JSON.stringify(name.slice(0, 80))} cannot be part of a file name everywhere`,
    {
      hint: `use 1 to ${maxTitle} letters, digits, _ . + - or spaces`,
    },
  );
}

async function listFolder(folder: string): Promise<readonly string[]> {
  try {
    await makeFolders(folder);
    return await readdir(folder);
  } catch (cause) {
    throw new RunnerError("USAGE", `--dir: "${folder}" cannot be used as a folder (${codeOf(cause)})`, {
      cause,
    });
  }
}

/** Two files of golang-migrate's among another tool's would be taken by neither. */
async function assertOwnKind(folder: string, names: readonly string[]): Promise<void> {
  const { detectFormat } = await import("../../migration/format/choose-format.ts");
  const format = await detectFormat({ names, read: (name) => readFile(join(folder, name)) });
  if (format === "golang-migrate") return;
  throw new RunnerError("USAGE", `--dir: the files of "${folder}" are written for ${format}`, {
    hint: `make the file as ${format} wants it; lockkeeper reads it as it is`,
    fields: { format },
  });
}

/** Both or none: `wx` refuses a file that is there, also one that came up a moment ago. */
async function writeNew(files: readonly { readonly path: string; readonly text: string }[]): Promise<void> {
  const written: string[] = [];
  try {
    for (const { path, text } of files) {
      await writeFile(path, text, { flag: "wx" });
      written.push(path);
    }
  } catch (cause) {
    await Promise.all(written.map((path) => unlink(path)));
    if (codeOf(cause) !== "EEXIST") {
      throw new RunnerError("USAGE", `a file cannot be written into the folder (${codeOf(cause)})`, {
        cause,
      });
    }
    throw new RunnerError(
      "USAGE",
      `${files[written.length]?.path ?? "the file"} is there already; nothing was written`,
      { cause: toRunnerError(cause) },
    );
  }
}

function codeOf(thrown: unknown): string {
  return thrown instanceof Error && "code" in thrown ? String(thrown.code) : "unknown reason";
}
