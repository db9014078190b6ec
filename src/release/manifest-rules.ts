import { RunnerError } from "../error.ts";
import type { Body, Migration } from "../migration/migration.ts";
import { versionKey } from "../migration/version.ts";
import { bodiesOf } from "./release.ts";

/**
 * What a schema cannot say of a manifest: labels, versions and byte ranges that fit together.
 *
 * @throws RunnerError `NAME`, `DUPLICATE_VERSION`, `SCHEMA`
 */
export function assertConsistent(
  migrations: readonly Migration[],
  repeatable: readonly Body[],
  pack: PackedRanges | undefined,
): void {
  assertLabels(migrations, repeatable);
  assertVersions(migrations);
  for (const body of bodiesOf({ migrations, repeatable })) assertStatements(body);
  if (pack !== undefined) assertPack(pack, migrations);
}

/**
 * Refuses what this version does not know how to run: to skip it would apply another release than the one that was signed.
 *
 * @param uses - parts of the format by name; undefined where the manifest does not use one
 * @throws RunnerError `RELEASE_UNSUPPORTED`
 */
export function assertSupported(uses: Readonly<Record<string, unknown>>): void {
  for (const [name, value] of Object.entries(uses)) {
    if (value === undefined) continue;
    throw new RunnerError(
      "RELEASE_UNSUPPORTED",
      `the release uses "${name}", which this version of lockkeeper cannot run`,
      {
        hint: "use a newer lockkeeper, or publish without it",
        fields: { field: name },
      },
    );
  }
}

/** The part of a pack that must fit to the migrations. */
interface PackedRanges {
  /** bytes */
  readonly size: number;
  readonly offsets: readonly { readonly seq: number; readonly offset: number }[];
}

const label = /^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,199}$/;

/** trust.md 2.2: ASCII only, so no two normal forms, directions or alphabets; never two that a file system could mix up. */
function assertLabels(migrations: readonly Migration[], repeatable: readonly Body[]): void {
  const seen = new Set<string>();
  const assertNew = (path: string): void => {
    if (!label.test(path)) {
      throw new RunnerError(
        "NAME",
        `a label of the manifest is not 1 to 200 of A-Z a-z 0-9 . _ + - (and no dot first)`,
      );
    }
    const folded = path.toLowerCase();
    if (seen.has(folded)) throw new RunnerError("NAME", `"${path}" is in the manifest twice`);
    seen.add(folded);
  };
  for (const { path, down, checkpoint } of migrations) {
    assertNew(path);
    // A file may hold both ways, and then both its bodies have its label.
    if (down !== undefined && down.path !== path) assertNew(down.path);
    if (checkpoint !== undefined) assertNew(checkpoint.path);
  }
  for (const { path } of repeatable) assertNew(path);
}

function assertVersions(migrations: readonly Migration[]): void {
  const seen = new Set<string>();
  for (const { path, version } of migrations) {
    const key = versionKey(version);
    if (seen.has(key)) {
      throw new RunnerError("DUPLICATE_VERSION", `the manifest has version ${key} twice, again at "${path}"`);
    }
    seen.add(key);
  }
}

/** Statements are listed exactly where they are needed, in order and within the body. */
function assertStatements({ path, size, tx, statements }: Body): void {
  const isListed = statements !== undefined;
  if (isListed !== (tx === "none")) {
    throw new RunnerError(
      "SCHEMA",
      `the manifest ${isListed ? "lists" : "does not list"} the statements of "${path}"`,
    );
  }
  let end = 0;
  for (const { offset, length } of statements ?? []) {
    if (offset < end || offset + length > size) {
      throw new RunnerError(
        "SCHEMA",
        `a statement of "${path}" lies outside of its body or upon another one`,
      );
    }
    end = offset + length;
  }
}

function assertPack(pack: PackedRanges, migrations: readonly Migration[]): void {
  for (const { seq, offset } of pack.offsets) {
    const migration = migrations[seq - 1];
    if (migration === undefined || offset + migration.size > pack.size) {
      throw new RunnerError("SCHEMA", `the pack does not hold what the manifest says of migration ${seq}`);
    }
  }
}
