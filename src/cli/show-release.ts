import type { Migration } from "../migration/migration.ts";
import type { Release } from "../release/release.ts";
import { formatPairs, formatTable } from "./output.ts";
import type { Paint } from "./output.ts";

/** A release as programs read it, without its migrations. */
export function describeRelease(release: Release): Record<string, unknown> {
  return {
    kind: release.kind,
    stream: release.stream,
    engine: release.engine,
    digest: release.digest,
    epoch: release.rank?.epoch ?? null,
    version: release.rank?.version ?? null,
    expires: release.expires?.toISOString() ?? null,
    signers: release.signers,
    count: release.migrations.length,
    warnings: release.warnings,
  };
}

/** What identifies a release, for a person. */
export function formatRelease(release: Release): string {
  return formatPairs([
    ["release", release.digest],
    ["stream", release.stream],
    ["version", release.rank === undefined ? undefined : `${release.rank.version} (epoch ${release.rank.epoch})`],
    ["expires", release.expires?.toISOString()],
    ["signed by", release.kind === "plain" ? "nobody: a plain folder" : release.signers.join(", ")],
    ["migrations", String(release.migrations.length)],
  ]);
}

/** Migrations in their order. */
export function formatMigrations(migrations: readonly Migration[], paint: Paint): string {
  const rows = migrations.map((migration) => [
    String(migration.seq),
    migration.version,
    migration.path,
    migration.down === undefined ? "no" : "yes",
    migration.tx === "one" ? "transaction" : "by statement",
    migration.locks.join(", "),
    String(migration.size),
    migration.sha256.slice(0, 12),
  ]);
  return formatTable(["seq", "version", "migration", "down", "runs", "locks", "bytes", "sha256"], rows, paint);
}
