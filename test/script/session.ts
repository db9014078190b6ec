import { spawn } from "node:child_process";
import { chmod, copyFile, mkdir, mkdtemp, readFile, readdir, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

/** The program as a person starts it in a checkout. */
const program = join(import.meta.dirname, "../../src/bin/cli.ts");

/** Milliseconds for one command of a session. */
const commandMs = 60_000;

/** A session: lines to do in order, and the files it begins with. */
interface Script {
  readonly lines: readonly { readonly number: number; readonly text: string }[];
  readonly files: readonly { readonly path: string; readonly text: string }[];
}

/** What the session knows while it goes on. */
interface Session {
  readonly folder: string;
  readonly database: TestDatabase;
  readonly variables: Map<string, string>;
  last: Outcome;
  readonly transcript: string[];
}

interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/**
 * Does a session in a folder and a database of its own, each command as a process; see `README.md` for the words.
 *
 * @throws Error with everything that was said up to the line that went wrong
 */
export async function playScript(file: string): Promise<void> {
  const script = parseScript(await readFile(file, "utf8"));
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-session-"));
  await using database = await createDatabase({ endsWith: "file" });
  try {
    await play(file, script, folder, database);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function play(file: string, script: Script, folder: string, database: TestDatabase): Promise<void> {
  for (const { path, text } of script.files) {
    await mkdir(dirname(join(folder, path)), { recursive: true });
    await writeFile(join(folder, path), text);
  }
  const variables = new Map([
    ["DATABASE_URL", database.url],
    ["DATABASE_NAME", database.name],
    ["PATH", `${dirname(process.execPath)}:${process.env["PATH"] ?? ""}`],
    ["HOME", folder],
  ]);
  const session: Session = {
    folder,
    database,
    variables,
    last: { code: 0, stdout: "", stderr: "" },
    transcript: [],
  };
  for (const { number, text } of script.lines) {
    session.transcript.push(`${number}: ${text}`);
    try {
      await doLine(text, session);
    } catch (cause) {
      const words = cause instanceof Error ? cause.message : String(cause);
      throw new Error(`${file}, line ${number}: ${words}\n\n${session.transcript.join("\n")}`, { cause });
    }
  }
}

function parseScript(text: string): Script {
  const [head = "", ...rest] = text.split(/^-- (.+) --\n/m);
  const files = [];
  for (let at = 0; at + 1 < rest.length; at += 2)
    files.push({ path: rest[at] ?? "", text: rest[at + 1] ?? "" });
  const lines = head
    .split("\n")
    .map((line, index) => ({ number: index + 1, text: line.trim() }))
    .filter((line) => line.text !== "" && !line.text.startsWith("#"));
  return { lines, files };
}

async function doLine(text: string, session: Session): Promise<void> {
  const words = splitWords(text, session.variables);
  const isNegated = words[0] === "!";
  const [command = "", ...args] = isNegated ? words.slice(1) : words;
  switch (command) {
    case "lockkeeper":
      return expectCode(await run(process.execPath, [program, ...args], session), 0, session);
    case "exit": {
      const [code = "", name, ...rest] = args;
      if (name !== "lockkeeper") throw new Error("only lockkeeper is asked for an exit code");
      return expectCode(await run(process.execPath, [program, ...rest], session), Number(code), session);
    }
    case "sh":
      return expectCode(await run("/bin/sh", ["-e", "-c", args.join(" ")], session), 0, session);
    case "sql": {
      const rows = await session.database.query(args.join(" "));
      session.last = {
        code: 0,
        stdout: rows.map((row) => Object.values(row).join("|")).join("\n"),
        stderr: "",
      };
      return;
    }
    case "stdout":
    case "stderr":
      return expectText(session.last[command], command, args.join(" "), isNegated);
    case "cp":
      return copyFile(join(session.folder, args[0] ?? ""), join(session.folder, args[1] ?? ""));
    case "rm":
      return rm(join(session.folder, args[0] ?? ""), { recursive: true });
    case "mkdir":
      await mkdir(join(session.folder, args[0] ?? ""), { recursive: true });
      return;
    case "env": {
      const [name = "", value = ""] = (args[0] ?? "").split(/=(.*)/s);
      if (value === "") session.variables.delete(name);
      else session.variables.set(name, value);
      return;
    }
    case "keep": {
      const [name = "", ...path] = args;
      session.variables.set(name, readMember(session.last.stdout, path.join(" ")));
      return;
    }
    case "json":
      return expectMember(session.last.stdout, args[0] ?? "", args.slice(1).join(" "));
    case "mode":
      return expectMode(join(session.folder, args[0] ?? ""), args[1] ?? "");
    case "readonly":
      return chmod(join(session.folder, args[0] ?? ""), 0o444);
    case "exists": {
      const found = (await readdir(dirname(join(session.folder, args[0] ?? "")))).includes(
        (args[0] ?? "").split("/").at(-1) ?? "",
      );
      if (found === isNegated) throw new Error(`${args[0]} ${found ? "is" : "is not"} there`);
      return;
    }
    default:
      throw new Error(`no such word: ${command}`);
  }
}

/** Words with quotes as a shell has them; `$NAME` is put in except between single quotes. */
function splitWords(text: string, variables: ReadonlyMap<string, string>): string[] {
  const words: string[] = [];
  const piece = /'([^']*)'|"([^"]*)"|([^\s'"]+)|(\s+)/g;
  let word: string | undefined;
  for (const [, single, double, bare, space] of text.matchAll(piece)) {
    if (space !== undefined) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? "") + (single ?? fill(double ?? bare ?? "", variables));
  }
  return word === undefined ? words : [...words, word];
}

function fill(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replace(/\$([A-Z_]+)/g, (_, name: string) => variables.get(name) ?? "");
}

async function run(file: string, args: readonly string[], session: Session): Promise<Outcome> {
  const child = spawn(file, args, {
    cwd: session.folder,
    env: Object.fromEntries(session.variables),
    stdio: ["ignore", "pipe", "pipe"],
    timeout: commandMs,
  });
  let [stdout, stderr] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
  const code = await new Promise<number>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (exit, signal) => resolve(exit ?? (signal === "SIGTERM" ? 143 : 1)));
  });
  session.last = { code, stdout, stderr };
  session.transcript.push(
    ...[stdout, stderr].map((text) => text.replace(/^(?=.)/gm, "    ")),
    `    exit ${code}`,
  );
  return session.last;
}

function expectCode({ code }: Outcome, expected: number, session: Session): void {
  if (code !== expected) throw new Error(`exit ${code}, expected ${expected}`);
  // whatever a session does, the password of its database is nobody's business
  const { password } = new URL(session.database.url);
  const said = `${session.last.stdout}${session.last.stderr}`;
  if (password !== "" && said.includes(`:${password}@`))
    throw new Error("the database's password was printed");
}

function expectText(text: string, name: string, pattern: string, isNegated: boolean): void {
  const isFound = new RegExp(pattern, "m").test(text);
  if (isFound === isNegated)
    throw new Error(`${name} ${isNegated ? "matches" : "does not match"} ${pattern}`);
}

function readMember(stdout: string, path: string): string {
  const value = path
    .split(".")
    .filter((name) => name !== "")
    .reduce<unknown>(
      (at, name) => (at !== null && typeof at === "object" ? Reflect.get(at, name) : undefined),
      JSON.parse(stdout),
    );
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "undefined");
}

function expectMember(stdout: string, path: string, expected: string): void {
  const actual = readMember(stdout, path);
  if (actual !== expected) throw new Error(`${path} is ${actual}, expected ${expected}`);
}

async function expectMode(path: string, expected: string): Promise<void> {
  const mode = ((await stat(path)).mode & 0o777).toString(8);
  if (mode !== expected) throw new Error(`mode is ${mode}, expected ${expected}`);
}
