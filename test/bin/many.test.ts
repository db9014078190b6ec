import { writeFile } from "node:fs/promises";
import { join } from "node:path";

import { expect, test } from "vitest";

import { createDatabase } from "../support/database.ts";
import { makeKey, publishTo, tempFolder } from "../support/release.ts";
import { bundled, startMany } from "./many.ts";

const runners = 64;
test(
  `${runners} processes of up for one signed release at once on one fresh database apply each migration once, and all exit 0`,
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
    // Signed, as pods are given it: then no runner needs a parser of its own.
    const key = makeKey();
    await using folder = await tempFolder();
    await publishTo(folder.source, files, { keys: [key] });
    const trust = join(folder.path, "orders.pub");
    await writeFile(trust, key.publicPem);
    await using programs = await tempFolder();
    const program = await bundled(programs.path);
    const args = [
      "up",
      "--source",
      folder.path,
      "--trust",
      trust,
      "--stream",
      "orders",
      "--database",
      database.url,
    ];
    const ended = await startMany(runners, program, args, folder.path);
    expect(ended).toEqual(Array.from({ length: runners }, () => ({ code: 0, said: "" })));
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
