import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compareVersions } from "../../src/migration/version.ts";
import { registryFile } from "../../src/release/folder/registry-file.ts";
import { type CycleLink, findCycle, type ServiceRelease } from "../../src/release/registry.ts";
import { inspectRelease } from "../../src/release/review/inspect.ts";
import { writeManifest } from "../../src/release/manifest.ts";
import { type Files, makeKeys, manifestOf, never, plant, publishTo, tempFolder } from "../support/release.ts";

const up: Files = {
  "0001_a.up.sql": "select 1;",
  "2_b.up.sql": "select 2;",
  "10_c.up.sql": "select 3;",
};

const good = `
service: orders
database: orders-db
migrations:
  - version: 1
  - version: 0010
    description: the column that billing read is gone
    breaking: true
    dependencies:
      - { service: billing, min-version: 1.10 }
      - { service: users, min-version: "007" }
`;

const read = {
  service: "orders",
  database: "orders-db",
  migrations: [
    { version: "1", breaking: false, dependencies: [] },
    {
      version: "0010",
      description: "the column that billing read is gone",
      breaking: true,
      dependencies: [
        { service: "billing", minVersion: "1.10" },
        { service: "users", minVersion: "007" },
      ],
    },
  ],
};

const head = "service: orders\ndatabase: d\nmigrations:\n";

/** A file and what is said of it: `line:column path: message`. */
const bad: readonly (readonly [string, string, readonly string[]])[] = [
  ["nothing", "", ["1:1 must be a mapping"]],
  ["a list", "- a\n", ["1:1 must be a mapping"]],
  ["a broken line", "service: [orders\n", ["2:1 Flow sequence"]],
  ["a key twice", `${head}  []\nservice: b\n`, ["5:1 Map keys must be unique"]],
  ["two documents", `${head}  []\n---\na: b\n`, ["multiple documents"]],
  ["a tag of a language", "service: !!js/function x\n", ["1:10 Unresolved tag"]],
  ["no service", "database: d\nmigrations: []\n", ["1:1 service: is missing"]],
  [
    "a service that is no name",
    "service: a/b\ndatabase: d\nmigrations: []\n",
    ["1:10 service: must be a name"],
  ],
  [
    "an unknown key",
    `${head}  - { version: 1, braking: true }\n`,
    ["4:19 migrations.0.braking: is not a field"],
  ],
  [
    "a key in another spelling",
    `${head}  - version: 1\n    dependencies: [{ service: b, minVersion: 1 }]\n`,
    [
      "5:20 migrations.0.dependencies.0.min-version: is missing",
      "5:34 migrations.0.dependencies.0.minVersion: is not a field",
    ],
  ],
  [
    "another word for breaking",
    `${head}  - { version: 1, breaking: yes }\n`,
    ["4:29 migrations.0.breaking: must be true or false"],
  ],
  [
    "a version that is none",
    `${head}  - { version: v1 }\n`,
    ["4:16 migrations.0.version: must be a version"],
  ],
  [
    "a minimum that is no version",
    `${head}  - version: 1\n    dependencies: [{ service: b, min-version: latest }]\n`,
    ["5:47 migrations.0.dependencies.0.min-version: must be a version"],
  ],
  [
    "dependencies that are no list",
    `${head}  - { version: 1, dependencies: billing }\n`,
    ["4:33 migrations.0.dependencies: must be a list"],
  ],
  [
    "a version that is not there",
    `${head}  - { version: 3 }\n`,
    ['4:16 migrations.0.version: there is no migration "3"'],
  ],
  [
    "a version twice",
    `${head}  - version: 1\n  - version: 001\n`,
    ['5:14 migrations.1.version: version "001" stands there twice'],
  ],
  [
    "a dependency on itself",
    `${head}  - version: 1\n    dependencies: [{ service: orders, min-version: 1 }]\n`,
    ['5:31 migrations.0.dependencies.0.service: "orders" cannot depend on itself'],
  ],
  [
    "one service twice",
    `${head}  - version: 1\n    dependencies: [{ service: b, min-version: 1 }, { service: b, min-version: 2 }]\n`,
    ["5:63 migrations.0.dependencies.1.service:"],
  ],
  [
    "a bell in a description",
    `${head}  - { version: 1, description: "\\a" }\n`,
    ["4:32 migrations.0.description: must be one line"],
  ],
  ["an alias that leads nowhere", `${head}  - *x\n`, ["Unresolved alias"]],
];

async function publish(files: Files, change: Partial<Parameters<typeof publishTo>[2]> = {}) {
  await using folder = await tempFolder();
  const { key } = makeKeys();
  const warnings: string[] = [];
  const result = await publishTo(folder.source, files, {
    keys: [key],
    emit: (event) => void (event.kind === "warning" && warnings.push(event.message)),
    ...change,
  });
  const { manifest } = await inspectRelease(
    { source: folder.source, withBodies: true, now: new Date() },
    never,
  );
  return { result, warnings, manifest };
}

describe("a folder's registry", () => {
  test("goes into the signed manifest, is no migration, and is not called ignored", async () => {
    const { manifest, warnings, result } = await publish({ ...up, [registryFile]: good });
    expect(manifest.registry).toEqual(read);
    expect(manifest.migrations.map(({ path }) => path)).toEqual(Object.keys(up));
    expect(result.added).toHaveLength(3);
    expect(warnings).toEqual([
      'not checked: whether dependencies lead round through "billing", "users"; say where its releases are with --registry-of',
    ]);
  });

  test.for(bad)("with %s is refused with its line", async ([, text, said]) => {
    const refused = await publish({ ...up, [registryFile]: text }).catch((error: unknown) => error);
    expect(refused).toMatchObject({ code: "SCHEMA" });
    for (const part of said) expect(String(refused)).toContain(part);
    expect(String(refused)).toContain(registryFile);
  });

  test("tells all of its problems at once", async () => {
    const text = `${head}  - { version: 3 }\n  - { version: 4 }\n`;
    await expect(publish({ ...up, [registryFile]: text })).rejects.toMatchObject({
      message: expect.stringMatching(/has 2 problems\n {2}\S+:4:16 .*\n {2}\S+:5:16 /) as string,
      fields: { line: 4, column: 16 },
    });
  });

  test("of a changed registry alone is a new release", async () => {
    await using folder = await tempFolder();
    const { key } = makeKeys();
    const first = await publishTo(folder.source, up, { keys: [key] });
    const files = { ...up, [registryFile]: good };
    const second = await publishTo(folder.source, files, { keys: [key] });
    expect(second).toMatchObject({ outcome: "published", version: first.version + 1, added: [] });
    expect(await publishTo(folder.source, files, { keys: [key] })).toMatchObject({ outcome: "unchanged" });
  });

  test.for(["migration-registry.yaml", ".migration-registry.yml", ".migration_registry.yaml"])(
    "is not called %s",
    async (name) => {
      await expect(publish({ ...up, [name]: good })).rejects.toMatchObject({
        code: "UNKNOWN_FILE",
        hint: expect.stringContaining(registryFile) as string,
      });
    },
  );

  test("that is signed is held to the same rules", async () => {
    const manifest = manifestOf(up);
    for (const registry of [
      { ...read, service: "billing" },
      { ...read, migrations: [{ version: "3", breaking: false, dependencies: [] }] },
      { ...read, migrations: [{ version: "1", breaking: false }] },
      { ...read, sha256: "0".repeat(64) },
    ]) {
      await using folder = await tempFolder();
      const { key } = makeKeys();
      const text = String(writeManifest(manifest)).replace(
        '"migrations": [',
        `"registry": ${JSON.stringify(registry)},\n "migrations": [`,
      );
      await plant(folder.source, { manifest: Buffer.from(text), keys: [key] });
      await expect(
        inspectRelease({ source: folder.source, withBodies: false, now: new Date() }, never),
      ).rejects.toMatchObject({ code: "SCHEMA", message: expect.stringContaining("registry") as string });
    }
  });
});

describe("other services' releases", () => {
  const registry = (service: string, version: number, needs: string, minVersion: number): string =>
    `service: ${service}\ndatabase: ${service}\nmigrations:\n  - version: ${version}\n    dependencies: [{ service: ${needs}, min-version: ${minVersion} }]\n`;
  const files = (text: string): Files => ({
    "1_a.up.sql": "select 1;",
    "2_b.up.sql": "select 2;",
    [registryFile]: text,
  });

  test("make a circle known, with everybody in it, before anything is written", async () => {
    await using billing = await tempFolder();
    await using users = await tempFolder();
    await using orders = await tempFolder();
    const { key } = makeKeys();
    const others = { keys: [key] as const, otherServices: [billing.source, users.source] };
    await publishTo(billing.source, files(registry("billing", 2, "users", 1)), {
      keys: [key],
      stream: "billing",
    });
    await publishTo(users.source, files(registry("users", 1, "orders", 2)), { keys: [key], stream: "users" });
    await expect(
      publishTo(orders.source, files(registry("orders", 1, "billing", 2)), others),
    ).rejects.toMatchObject({
      code: "DEPENDENCY_CYCLE",
      message: expect.stringContaining(
        '"orders" 1 needs "billing" 2, "billing" 2 needs "users" 1, "users" 1 needs "orders" 2',
      ) as string,
    });
    expect(await orders.source.list("", never)).toEqual([]);
    // Needed only by what comes after it, it is an order and no circle.
    await expect(
      publishTo(orders.source, files(registry("orders", 1, "billing", 1)), others),
    ).resolves.toMatchObject({
      outcome: "published",
    });
  });

  test("that have no such version yet, or are not there, are told and hold nothing up", async () => {
    await using billing = await tempFolder();
    await using empty = await tempFolder();
    const { key } = makeKeys();
    await publishTo(billing.source, { "1_a.up.sql": "select 1;" }, { keys: [key], stream: "billing" });
    const { warnings } = await publish(files(registry("orders", 1, "billing", 7)), {
      otherServices: [billing.source, empty.source],
    });
    expect(warnings).toEqual([
      expect.stringMatching(
        /^no release is published under file:.*: what its service depends on was not checked$/,
      ),
      'version 1 depends on "billing" 7, which its newest release does not have yet',
    ]);
  });
});

/** A few services with a few migrations, which need each other at random. */
const worlds = fc
  .array(
    fc.array(fc.array(fc.tuple(fc.nat(4), fc.integer({ min: 1, max: 6 })), { maxLength: 2 }), {
      maxLength: 5,
    }),
    {
      minLength: 1,
      maxLength: 5,
    },
  )
  .map((services) =>
    services.map((migrations, self): ServiceRelease => ({
      service: `s${self}`,
      versions: migrations.map((_, index) => String(index + 1)),
      registry: {
        service: `s${self}`,
        database: "d",
        migrations: migrations.map((needs, index) => ({
          version: String(index + 1),
          breaking: false,
          dependencies: needs
            .filter(([other]) => other !== self)
            .map(([other, version]) => ({ service: `s${other}`, minVersion: String(version) })),
        })),
      },
    })),
  );

/** Whether all migrations can be put into one order: Kahn's algorithm over every single one of them. */
function hasOrder(services: readonly ServiceRelease[]): boolean {
  const waits = new Map<string, Set<string>>();
  const name = (service: string, version: string): string => `${service} ${version}`;
  for (const { service, versions, registry } of services) {
    for (const [index, version] of versions.entries()) {
      const before = versions[index - 1];
      const needs = registry?.migrations.find((one) => one.version === version)?.dependencies ?? [];
      const needed = needs.flatMap((need) => {
        const other = services.find((each) => each.service === need.service);
        const there = other?.versions.find((each) => compareVersions(each, need.minVersion) >= 0);
        return there === undefined ? [] : [name(need.service, there)];
      });
      waits.set(
        name(service, version),
        new Set([...(before === undefined ? [] : [name(service, before)]), ...needed]),
      );
    }
  }
  for (let found = true; found;) {
    found = false;
    for (const [node, on] of waits) {
      if ([...on].some((other) => waits.has(other))) continue;
      waits.delete(node);
      found = true;
    }
  }
  return waits.size === 0;
}

describe("a cycle", () => {
  test("is found exactly where the migrations cannot be put into one order", () => {
    fc.assert(
      fc.property(worlds, (services) => {
        expect(findCycle(services) === undefined).toBe(hasOrder(services));
      }),
      { numRuns: 3_000 },
    );
  });

  test("leads from each service to the next and back, and each link stands in a registry", () => {
    let found = 0;
    fc.assert(
      fc.property(worlds, (services) => {
        const cycle: readonly CycleLink[] = findCycle(services) ?? [];
        found += cycle.length > 0 ? 1 : 0;
        for (const [index, { service, version, needs }] of cycle.entries()) {
          const next = cycle[(index + 1) % cycle.length];
          const own = services.find((each) => each.service === service);
          const entry = own?.registry?.migrations.find((one) => one.version === version);
          expect(entry?.dependencies).toContainEqual(needs);
          expect(next?.service).toBe(needs.service);
          // The next one is held up at or before what is needed of it.
          expect(compareVersions(next?.version ?? "", needs.minVersion)).toBeLessThanOrEqual(0);
        }
      }),
      { numRuns: 3_000 },
    );
    expect(found).toBeGreaterThan(100);
  });
});
