/**
 * umzug has no command line of its own: a project writes this file. `node umzug.mjs URL FOLDER up|down|executed …`
 *
 * As its documents show it: modules with `up` and `down`, or pairs of `.up.sql` and `.down.sql`; what has run is kept in
 * Sequelize's table on PostgreSQL, in umzug's own collection on MongoDB.
 */
import { readFileSync } from "node:fs";
import { MongoClient } from "mongodb";
import { Sequelize } from "sequelize";
import { MongoDBStorage, SequelizeStorage, Umzug } from "umzug";

const [url, folder, ...verb] = process.argv.slice(2);
const { context, storage, close } = url.startsWith("mongodb") ? await mongo() : postgres();

const umzug = new Umzug({
  migrations: {
    glob: ["*{.js,.cjs,.mjs,.up.sql}", { cwd: folder }],
    resolve: (found) => (found.path.endsWith(".sql") ? pair(found) : Umzug.defaultResolver(found)),
  },
  context,
  storage,
  logger: console,
});
const done = await umzug.runAsCLI(verb);
await close();
process.exitCode = done ? 0 : 1;

function postgres() {
  const sequelize = new Sequelize(url, { logging: false });
  return {
    context: sequelize.getQueryInterface(),
    storage: new SequelizeStorage({ sequelize }),
    close: () => sequelize.close(),
  };
}

async function mongo() {
  const client = await new MongoClient(url).connect();
  const database = client.db();
  return {
    context: database,
    storage: new MongoDBStorage({ connection: database }),
    close: () => client.close(),
  };
}

function pair({ name, path, context }) {
  const run = (file) => context.sequelize.query(readFileSync(file, "utf8"));
  return {
    name,
    up: () => run(path),
    down: () => run(path.replace(/\.up\.sql$/, ".down.sql")),
  };
}
