/**
 * A process that does by hand what a no-op cannot do without: one signed GET of the release's head, and one query on a
 * pooled connection; nothing of lockkeeper's is loaded. Forked by `scene.ts`, which sends one message for each load.
 */
import pg from "pg";
import * as v from "valibot";
import { openSignedGet } from "../floor/signed-get.ts";
import { load } from "./load.ts";

const text = v.string();
const setup = v.parse(
  v.object({
    object: v.object({ endpoint: text, path: text, accessKeyId: text, secretAccessKey: text }),
    databaseUrls: v.array(text),
    clients: v.number(),
  }),
  JSON.parse(process.argv[2] ?? ""),
);
const askSchema = v.object({
  commits: v.boolean(),
  limits: v.object({ clients: v.number(), requests: v.number(), seconds: v.number() }),
});

const get = openSignedGet(setup.object, setup.clients);
const pools = setup.databaseUrls.map((connectionString) => new pg.Pool({ connectionString, max: 12 }));

process.on("message", (message) => void answer(message));

async function answer(message: unknown): Promise<void> {
  const { commits, limits } = v.parse(askSchema, message);
  const before = process.cpuUsage();
  const { ms, seconds } = await load(limits, async (_, client) => {
    const pool = pools[client % pools.length];
    await get();
    await pool?.query("SELECT completed FROM lockkeeper.streams WHERE name = 'bench'");
    // On a table of its own: what has to be on the disk before anybody is told that it was recorded.
    if (commits) await pool?.query("INSERT INTO by_hand (note) VALUES ('asked, allowed and done')");
  });
  const { user, system } = process.cpuUsage(before);
  process.send?.({ ms, seconds, cpuMs: (user + system) / 1_000 });
}
