import { spawn } from "node:child_process";
import { join } from "node:path";

import { expect, test } from "vitest";

import { createDatabase } from "../support/database.ts";
import { tempFolder } from "../support/release.ts";

const root = join(import.meta.dirname, "../..");

/** The command line as a process of its own; its exit code, and what it said when that is not 0. */
function lockkeeper(args: readonly string[], cwd: string): Promise<{ code: number | null; said: string }> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [join(root, "src/bin/cli.ts"), ...args], {
      cwd,
      env: { PATH: process.env["PATH"] ?? "", HOME: cwd },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (text: Buffer) => (said += text.toString()));
    child.once("close", (code) => resolve({ code, said: code === 0 ? "" : said }));
  });
}

test(
  "32 processes of up at once on one fresh database apply each migration once, and all exit 0",
  { timeout: 180_000 },
  async () => {
    const database = await createDatabase();
    const files = Object.fromEntries(
      Array.from({ length: 20 }, (_, index) => [
        `${String(index + 1).padStart(6, "0")}_t.up.sql`,
        index === 9
          ? "CREATE INDEX CONCURRENTLY by_n ON effects (n);\nINSERT INTO effects VALUES (10);"
          : `${index === 0 ? "CREATE TABLE effects (n int);" : ""} INSERT INTO effects VALUES (${index + 1});`,
      ]),
    );
    await using folder = await tempFolder(files);
    const args = [
      "up",
      "--source",
      folder.path,
      "--unsigned",
      "--stream",
      "orders",
      "--database",
      database.url,
    ];
    const ended = await Promise.all(Array.from({ length: 32 }, () => lockkeeper(args, folder.path)));
    expect(ended).toEqual(Array.from({ length: 32 }, () => ({ code: 0, said: "" })));
    const effects = await database.query<{ n: number }>("SELECT n FROM effects ORDER BY n");
    expect(effects.map(({ n }) => n)).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
    const history = await database.query<{ seq: number; status: string }>(
      "SELECT seq, status FROM lockkeeper.history ORDER BY id",
    );
    expect(history).toEqual(Array.from({ length: 20 }, (_, index) => ({ seq: index + 1, status: "done" })));
    expect(await database.query("SELECT holder FROM lockkeeper.streams")).toEqual([{ holder: null }]);
    expect(await database.query("SELECT id FROM lockkeeper.runs WHERE status NOT IN ('succeeded')")).toEqual(
      [],
    );
  },
);
