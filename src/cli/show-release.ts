import type { Migration } from "../migration/migration.ts";
import { formatChainEnd } from "../release/chain.ts";
import type { Inspection } from "../release/inspect.ts";
import type { Registry } from "../release/registry.ts";
import type { Release } from "../release/release.ts";
import { describeFailure } from "./failure.ts";
import { formatPairs, formatTable } from "./output.ts";
import type { Paint } from "./output.ts";

/** A signed release as programs read it. */
export function describeInspection(inspection: Inspection): Record<string, unknown> {
  const { statement, manifest, verdict } = inspection;
  return {
    kind: "signed",
    url: inspection.url,
    digest: inspection.digest,
    newest: inspection.isNewest,
    stream: statement.stream,
    engine: manifest.engine,
    epoch: statement.epoch,
    version: statement.version,
    previous: statement.previous,
    chain: formatChainEnd(statement.chain),
    environments: statement.environments,
    issued: statement.issued.toISOString(),
    expires: statement.expires.toISOString(),
    expired: inspection.isExpired,
    signatures: inspection.signatures,
    threshold: inspection.threshold,
    verdict: verdict.kind,
    problem: verdict.kind === "refused" ? describeFailure(verdict.error) : null,
    changes: inspection.changes,
    bodies: inspection.bodies,
    migrations: manifest.migrations,
    registry: manifest.registry ?? null,
  };
}

/** A signed release as a person reads it: what it is, whether it would be taken, and what is new in it. */
export function formatInspection(inspection: Inspection, paint: Paint): string {
  const { statement, changes, bodies } = inspection;
  const signatures = inspection.signatures.map(
    ({ keyId, isTrusted }) =>
      `${keyId ?? "a key without a name"}${isTrusted || inspection.threshold === null ? "" : " (not trusted)"}`,
  );
  return formatPairs([
    ["release", `${inspection.digest}${inspection.isNewest ? ", the newest" : ""}`],
    ["verdict", verdictInWords(inspection, paint)],
    ["stream", statement.stream],
    ["version", `${statement.version} (epoch ${statement.epoch})`],
    ["for", statement.environments.join(", ")],
    ["issued", statement.issued.toISOString()],
    [
      "expires",
      inspection.isExpired
        ? paint.bad(`${statement.expires.toISOString()}, expired`)
        : statement.expires.toISOString(),
    ],
    ["signed by", signatures.join(", ")],
    ["migrations", String(inspection.manifest.migrations.length)],
    ...describeServices(inspection.manifest.registry),
    [
      "new",
      changes === null ? undefined : `${list(changes.added)}, since version ${changes.previousVersion}`,
    ],
    [
      "rewritten",
      changes === null || changes.rewritten.length === 0 ? undefined : paint.bad(list(changes.rewritten)),
    ],
    [
      "other down",
      changes === null || changes.downChanged.length === 0
        ? undefined
        : paint.warn(list(changes.downChanged)),
    ],
    [
      "bodies",
      bodies === null
        ? undefined
        : paint.good(`${bodies.count} fetched and as signed, ${bodies.bytes} bytes`),
    ],
  ]);
}

/** A plain folder as programs read it. */
export function describeFolder(release: Release, url: string): Record<string, unknown> {
  return {
    kind: "plain",
    url,
    digest: release.digest,
    engine: release.engine,
    warnings: release.warnings,
    migrations: release.migrations,
    registry: release.registry ?? null,
  };
}

/** A plain folder as a person reads it. */
export function formatFolder(release: Release, url: string, paint: Paint): string {
  return formatPairs([
    ["folder", url],
    ["digest", release.digest],
    ["verdict", paint.warn("nobody signed it")],
    ["migrations", String(release.migrations.length)],
    ...describeServices(release.registry),
    ...release.warnings.map((warning) => ["warning", paint.warn(warning)] as const),
  ]);
}

/** Migrations in their order. */
export function formatMigrations(migrations: readonly Migration[], paint: Paint): string {
  const rows = migrations.map((migration) => [
    String(migration.seq),
    migration.version,
    migration.path,
    migration.down === undefined ? "no" : "yes",
    migration.code === true ? "program" : migration.tx === "one" ? "transaction" : "by statement",
    migration.locks.join(", "),
    String(migration.size),
    migration.sha256.slice(0, 12),
  ]);
  return formatTable(
    ["seq", "version", "migration", "down", "runs", "locks", "bytes", "sha256"],
    rows,
    paint,
  );
}

/** What the registry of services says, one line for those that break something, one for what is needed. */
function describeServices(
  registry: Registry | undefined,
): readonly (readonly [string, string | undefined])[] {
  if (registry === undefined) return [];
  const breaking = registry.migrations.filter((one) => one.breaking).map(({ version }) => version);
  const needs = registry.migrations.flatMap(({ version, dependencies }) =>
    dependencies.map(({ service, minVersion }) => `${version} needs ${service} ${minVersion}`),
  );
  return [
    ["service", `${registry.service}, on ${registry.database}`],
    ["breaking", breaking.length === 0 ? undefined : list(breaking)],
    ["needs", needs.length === 0 ? undefined : list(needs)],
  ];
}

function verdictInWords({ verdict, threshold }: Inspection, paint: Paint): string {
  switch (verdict.kind) {
    case "verified":
      return paint.good(`verified, ${threshold ?? 1} ${threshold === 1 ? "signature" : "signatures"} needed`);
    case "refused":
      return `${paint.bad("refused")}: ${verdict.error.message} (${verdict.error.code})`;
    case "unknown":
      return paint.warn("not verified: no --trust was given");
  }
}

function list(names: readonly string[]): string {
  if (names.length === 0) return "none";
  const more = names.length - 10;
  return more > 0 ? `${names.slice(0, 10).join(", ")} and ${more} more` : names.join(", ");
}
