import * as v from "valibot";

import { RunnerError } from "../error.ts";
import { isVersion } from "../migration/version.ts";
import type { Body, Engine, Migration, StatementKind } from "../migration/migration.ts";
import { releaseLimits } from "./limits.ts";
import { bodiesOf } from "./release.ts";
import { assertConsistent, assertSupported } from "./manifest-rules.ts";
import { registryProblems, registrySchema } from "./registry.ts";
import type { Registry } from "./registry.ts";
import { check, count, nameText, sha256Text } from "./schema.ts";
import { parseStrictJson } from "./strict-json.ts";

/** A release's list of migrations, manifest v1. Its digest is in the signed statement. */
export interface Manifest {
  readonly stream: string;
  readonly engine: Engine;
  /** whose file layout the labels follow: `golang-migrate` */
  readonly format: string;
  /** what found `tx`, `alone`, `locks` and `statements`: `libpg-query 18.1.5` */
  readonly parser: string;
  readonly migrations: readonly Migration[];
  /** run after all others, in this order, whenever their bytes change */
  readonly repeatable: readonly Body[];
  /** what the service says of its migrations to others */
  readonly registry?: Registry;
  readonly pack?: Pack;
}

/** Bodies of many migrations in one object, back to back, so that one request brings them all. */
export interface Pack {
  readonly sha256: string;
  /** bytes */
  readonly size: number;
  /** where the up body of a migration begins; its length is that body's `size` */
  readonly offsets: readonly { readonly seq: number; readonly offset: number }[];
}

const schemaName = "urn:lockkeeper:manifest:v1";

/** The bytes of a manifest: one migration a line, so that two of them compare well in a pull request. */
export function writeManifest(manifest: Manifest): Buffer {
  const { stream, engine, format, parser, migrations, repeatable, registry, pack } = manifest;
  const top = Object.entries({
    schema: schemaName,
    stream,
    engine,
    format,
    parser,
    ...(repeatable.length > 0 && { repeatable: repeatable.map(bodyInOrder) }),
    ...(registry && { registry }),
    ...(pack && { pack }),
  });
  const lines = migrations.map((migration) => `  ${JSON.stringify(inOrder(migration))}`);
  return Buffer.from(
    `{\n${top.map(([name, value]) => ` ${JSON.stringify(name)}: ${JSON.stringify(value)},\n`).join("")} "migrations": [\n${lines.join(",\n")}\n ]\n}\n`,
  );
}

/**
 * The bytes that a verified statement names → manifest.
 *
 * @throws RunnerError `TOO_LARGE`, `JSON_…`, `SCHEMA`, `DUPLICATE_VERSION`, `NAME` — a label that is not plain ASCII, or twice without regard to case
 * @throws RunnerError `RELEASE_UNSUPPORTED` — it uses a part of the format that this version cannot honour
 */
export function readManifest(bytes: Uint8Array): Manifest {
  const value = parseStrictJson(bytes, what, releaseLimits.manifestBytes);
  const {
    schema: _,
    base,
    repeatable = [],
    registry,
    pack,
    migrations,
    ...top
  } = check(manifestSchema, value, what);
  assertSupported({
    base,
    checks: migrations.find(({ checks }) => checks !== undefined),
    code: bodiesOf({ migrations, repeatable }).find(({ code, tx }) => code === true && tx === "none"),
  });
  assertConsistent(migrations, repeatable, pack);
  if (registry !== undefined) assertRegistry(registry, migrations);
  return { ...top, migrations, repeatable, ...(registry && { registry }), ...(pack && { pack }) };
}

function assertRegistry(registry: Registry, migrations: readonly Migration[]): void {
  const [problem] = registryProblems(
    registry,
    migrations.map(({ version }) => version),
  );
  if (problem === undefined) return;
  const field = ["registry", ...problem.path].join(".");
  throw new RunnerError("SCHEMA", `${what}: "${field}" ${problem.message}`, { fields: { field } });
}

const what = "the manifest";

/** `path` is judged by `assertConsistent`, with a code of its own. */
const bodyEntries = {
  path: v.string(),
  sha256: sha256Text,
  size: count(0, releaseLimits.blobBytes),
  tx: v.picklist(["one", "none"]),
  alone: v.boolean(),
  locks: v.pipe(
    v.array(v.pipe(v.string(), v.regex(/^[A-Z][A-Z ]{0,39}$/, "a lock mode"))),
    v.maxLength(8, "at most 8 lock modes"),
  ),
  code: v.exactOptional(v.literal(true)),
  crc32: v.exactOptional(count(0, 0xff_ff_ff_ff)),
  statements: v.exactOptional(
    v.pipe(
      v.array(
        v.strictObject({
          offset: count(0, releaseLimits.blobBytes),
          length: count(1, releaseLimits.blobBytes),
          kind: statementKind(),
        }),
      ),
      v.maxLength(releaseLimits.statements, `at most ${releaseLimits.statements} statements`),
    ),
  ),
};

const plainBody = v.strictObject({
  path: v.string(),
  sha256: sha256Text,
  size: count(0, releaseLimits.blobBytes),
});

const manifestSchema = v.strictObject({
  schema: v.literal(schemaName),
  stream: nameText,
  engine: v.picklist(["postgres", "mongodb"]),
  format: nameText,
  parser: v.pipe(v.string(), v.regex(/^[\x20-\x7e]{1,100}$/, "1 to 100 printable characters")),
  migrations: v.pipe(
    v.array(
      v.strictObject({
        seq: count(1, releaseLimits.migrations),
        version: v.pipe(v.string(), v.maxLength(releaseLimits.nameLength), v.check(isVersion, "a version")),
        ...bodyEntries,
        chain: sha256Text,
        down: v.exactOptional(v.strictObject(bodyEntries)),
        checkpoint: v.exactOptional(v.strictObject(bodyEntries)),
        checks: v.exactOptional(v.array(plainBody)),
      }),
    ),
    v.maxLength(releaseLimits.migrations, `at most ${releaseLimits.migrations} migrations`),
  ),
  /** squashed history: the chain begins here */
  base: v.exactOptional(v.strictObject({ length: count(1, releaseLimits.migrations), chain: sha256Text })),
  /** run again whenever their bytes change */
  repeatable: v.exactOptional(
    v.pipe(
      v.array(v.strictObject(bodyEntries)),
      v.minLength(1, "at least one, or absent"),
      v.maxLength(releaseLimits.migrations, `at most ${releaseLimits.migrations} migrations`),
    ),
  ),
  registry: v.exactOptional(registrySchema),
  pack: v.exactOptional(
    v.strictObject({
      sha256: sha256Text,
      size: count(1, releaseLimits.packBytes),
      offsets: v.pipe(
        v.array(
          v.strictObject({
            seq: count(1, releaseLimits.migrations),
            offset: count(0, releaseLimits.packBytes),
          }),
        ),
        v.maxLength(releaseLimits.migrations, "one offset a migration"),
      ),
    }),
  ),
});

function statementKind() {
  return v.picklist([
    "transactional",
    "backfill",
    "repeatable",
    "once",
    "create-index-concurrently",
    "drop-index-concurrently",
    "reindex-concurrently",
    "reindex-many",
    "detach-partition-concurrently",
    "vacuum",
    "cluster-all",
    "alter-system",
    "create-database",
    "drop-database",
    "alter-database-tablespace",
    "create-tablespace",
    "drop-tablespace",
    "create-subscription",
    "drop-subscription",
    "discard-all",
    "call",
  ] satisfies StatementKind[]);
}

/** Members in the order of the documentation, whatever order the object was built in. */
function inOrder({
  seq,
  version,
  path,
  sha256,
  size,
  chain,
  tx,
  alone,
  locks,
  down,
  checkpoint,
  statements,
  code,
  crc32,
}: Migration): object {
  return {
    seq,
    version,
    path,
    sha256,
    size,
    chain,
    tx,
    alone,
    locks,
    ...(statements && { statements }),
    ...(code && { code }),
    ...(crc32 !== undefined && { crc32 }),
    ...(down && { down: bodyInOrder(down) }),
    ...(checkpoint && { checkpoint: bodyInOrder(checkpoint) }),
  };
}

function bodyInOrder({ path, sha256, size, tx, alone, locks, statements, code, crc32 }: Body): object {
  return {
    path,
    sha256,
    size,
    tx,
    alone,
    locks,
    ...(statements && { statements }),
    ...(code && { code }),
    ...(crc32 !== undefined && { crc32 }),
  };
}
