// The two roles of lockkeeper on MongoDB, for one database. As an administrator, before the first migration:
//
//   mongosh "$ADMIN_URL" --eval 'const database = "orders"' roles-mongodb.js
//
// Then make users with them: db.getSiblingDB("orders").createUser({ user: "…", pwd: "…", roles: ["lockkeeperRunner"] }).
// On Atlas the same privileges are custom database roles.

const target = db.getSiblingDB(database);
const own = (collection, actions) => ({
  resource: { db: database, collection: `lockkeeper.${collection}` },
  actions,
});

// Who changes the database: all of its collections, lockkeeper's own among them, and no user, role or other database.
// serverStatus, inprog and killop, which find what a dead runner has left on the server, are a cluster's to give:
// without them a runner waits for such a command's time limit.
target.createRole({
  role: "lockkeeperRunner",
  privileges: [],
  roles: [
    { role: "readWrite", db: database },
    { role: "dbAdmin", db: database },
  ],
});

// Who only looks: wait, status, history, the gate of a server. Nothing of the application's.
target.createRole({
  role: "lockkeeperReader",
  privileges: ["streams", "leases", "history", "runs"].map((collection) => own(collection, ["find"])),
  roles: [],
});
