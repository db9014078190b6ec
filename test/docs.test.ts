import { execFile, spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";

import { describe, expect, onTestFinished, test } from "vitest";

import { createDatabase } from "./support/database.ts";
import { createMongoDatabase } from "./support/mongo.ts";
import { needs } from "./support/parts.ts";
import { createIssuer } from "./support/token.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "..");

/** One fenced block of a document: its language, the words after it, its text. */
interface Block {
  readonly language: string;
  readonly words: string;
  readonly text: string;
}

function blocksOf(file: string): readonly Block[] {
  const text = readFileSync(join(root, file), "utf8");
  return [...text.matchAll(/^```(\w+)([^\n]*)\n([\s\S]*?)^```$/gm)].map(
    ([, language = "", words = "", body = ""]) => ({
      language,
      words: words.trim(),
      text: body,
    }),
  );
}

function block(blocks: readonly Block[], language: string, words: string): string {
  const found = blocks.find((candidate) => candidate.language === language && candidate.words === words);
  if (found === undefined) throw new Error(`the README has no block ${language} ${words}`);
  return found.text;
}

/** A folder with `lockkeeper` on its PATH, as a user of the installed program has it. */
function userFolder(): { readonly folder: string; readonly path: string } {
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-docs-"));
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }));
  const bin = join(folder, ".bin");
  mkdirSync(bin);
  writeFileSync(
    join(bin, "lockkeeper"),
    `#!/bin/sh\nexec "${process.execPath}" "${join(root, "src/bin/cli.ts")}" "$@"\n`,
  );
  chmodSync(join(bin, "lockkeeper"), 0o755);
  return { folder, path: `${bin}:${process.env["PATH"] ?? ""}` };
}

describe("README", () => {
  test(
    "a new user gets from nothing to a release applied over HTTP by its blocks alone",
    { timeout: 180_000 },
    async () => {
      const blocks = blocksOf("README.md");
      const database = await createDatabase();
      const { folder, path } = userFolder();
      const env = { PATH: path, HOME: folder, DATABASE_URL: database.url };

      const commands = blocks.filter(({ language, words }) => language === "sh" && words === "run");
      expect(commands.length).toBeGreaterThanOrEqual(2);
      for (const { text } of commands) await run("sh", ["-e", "-c", text], { cwd: folder, env });
      const columns = await database.query(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'users' ORDER BY 1",
      );
      expect(columns.map((row) => row["column_name"])).toEqual(["email", "id", "name"]);

      const issuer = await createIssuer({ url: "https://ci.example" });
      writeFileSync(join(folder, "lockkeeper.yaml"), block(blocks, "yaml", "file=lockkeeper.yaml"));
      writeFileSync(join(folder, "policy.json"), block(blocks, "json", "file=policy.json"));
      writeFileSync(join(folder, "jwks.json"), issuer.jwks);
      writeFileSync(join(folder, "database-url"), database.url, { mode: 0o600 });
      const server = spawn(
        "lockkeeper",
        ["serve", "--config", "lockkeeper.yaml", "--listen", "127.0.0.1:0"],
        { cwd: folder, env },
      );
      onTestFinished(() => void server.kill("SIGTERM"));
      const url = await listening(server.stderr);

      const token = await issuer.token({
        aud: "https://migrate.example",
        repository_id: "456789",
        environment: "production",
      });
      const request = block(blocks, "sh", "run=http");
      const { stdout } = await run("sh", ["-e", "-c", request], {
        cwd: folder,
        env: { ...env, LOCKKEEPER_SERVER: url, TOKEN: token },
      });
      const { id, ...told } = JSON.parse(block(blocks, "json", "answer")) as Record<string, unknown>;
      const answer = JSON.parse(stdout) as Record<string, unknown>;
      expect(answer).toMatchObject(told);
      expect(answer["id"]).toMatch(new RegExp(`^${String(id).split(".")[0] ?? ""}\\.01[0-9A-Z]{24}$`));
    },
  );

  describe("for MongoDB", () => {
    needs("mongodb");

    test("gets from commands to a release applied by its block alone", { timeout: 180_000 }, async () => {
      const database = await createMongoDatabase();
      const { folder, path } = userFolder();
      const env = { PATH: path, HOME: folder, MONGODB_URL: database.url };
      await run("lockkeeper", ["keygen", "--out", "release.key"], { cwd: folder, env });
      const text = block(blocksOf("README.md"), "sh", "run=mongo");
      await run("sh", ["-e", "-c", text], { cwd: folder, env });
      const [user] = await database.db.collection("users").find().toArray();
      expect(user).toEqual({ _id: 1, email: "ada@example.com" });
    });
  });

  test("every file that a document links to is there", () => {
    for (const file of ["README.md", "src/README.md", "test/README.md", "bench/README.md", "CHANGELOG.md"]) {
      const text = readFileSync(join(root, file), "utf8");
      const links = [...text.matchAll(/\]\(([^)#:]+)\)/g)].map(([, target = ""]) => target);
      for (const link of links)
        expect(existsSync(join(root, file, "..", link)), `${file} links to ${link}`).toBe(true);
    }
  });
});

describe("the map of the source", () => {
  const map = readFileSync(join(root, "src/README.md"), "utf8");

  test("names every room and every file of the top level", () => {
    const entries = readdirSync(join(root, "src"), { withFileTypes: true }).filter(
      ({ name }) => name !== "README.md",
    );
    for (const entry of entries)
      expect(map).toContain(entry.isDirectory() ? `\`${entry.name}/\`` : `\`${entry.name}\``);
  });

  test("names only tests and files that exist", () => {
    const named = [...map.matchAll(/`((?:test|driver|release|http|plan)\/[\w./-]+)`/g)].map(
      ([, path = ""]) => path,
    );
    expect(named.length).toBeGreaterThan(5);
    for (const path of named)
      expect(existsSync(join(root, path)) || existsSync(join(root, "src", path)), path).toBe(true);
  });
});

async function listening(stream: NodeJS.ReadableStream): Promise<string> {
  const seen: string[] = [];
  for await (const line of createInterface({ input: stream })) {
    seen.push(line);
    const url = /listens on (http\S+)/.exec(line)?.[1];
    if (url !== undefined) {
      stream.resume();
      return url;
    }
  }
  throw new Error(`the server ended before it listened: ${seen.join("\n")}`);
}
