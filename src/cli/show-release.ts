import type { Migration } from "../migration/migration.ts";
import { formatChainEnd } from "../release/chain.ts";
import type { Basis } from "../release/review/changes.ts";
import type { Inspection } from "../release/review/inspect.ts";
import type { Registry } from "../release/registry.ts";
import type { Release } from "../release/release.ts";
import { describeFailure } from "./failure.ts";
import { formatPairs, formatTable, printable } from "./output.ts";
import type { Paint } from "./output.ts";

/** A signed release as programs read it. */
export function describeInspection(inspection: Inspection): Record<string, unknown> {
  const { statement, manifest, verdict } = inspection;
  return {
    kind: "signed",
    url: inspection.url,
    digest: inspection.digest,
    place: inspection.place,
    newest: inspection.place === "newest",
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
    stale: inspection.stale === null ? null : describeFailure(inspection.stale),
    source: statement.source ?? null,
    environment: inspection.environment,
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
  const expires = statement.expires.toISOString();
  const days = Math.round((statement.expires.getTime() - statement.issued.getTime()) / 86_400_000);
  return formatPairs([
    ["release", `${inspection.digest}${placeInWords(inspection, paint)}`],
    ["verdict", verdictInWords(inspection, paint)],
    ["stream", statement.stream],
    ["version", versionInWords(inspection, paint)],
    ["for", statement.environments.join(", ")],
    ["issued", statement.issued.toISOString()],
    ["expires", inspection.isExpired ? paint.bad(`${expires}, expired`) : `${expires}, after ${days} days`],
    [
      "not fresh",
      inspection.stale === null
        ? undefined
        : paint.bad(`${inspection.stale.message} (${inspection.stale.code})`),
    ],
    ["from", sourceInWords(statement)],
    ["signed by", signaturesInWords(inspection)],
    ["migrations", String(inspection.manifest.migrations.length)],
    ...describeServices(inspection.manifest.registry),
    ["against", basisInWords(changes.against, paint)],
    ["new", list(changes.added)],
    ["rewritten", listIn(paint.bad, changes.rewritten)],
    ["other down", listIn(paint.warn, changes.downChanged)],
    ["other checkpoint", listIn(paint.warn, changes.checkpointChanged)],
    ["repeatable", listIn(paint.warn, changes.repeatableChanged)],
    ["no longer", listIn(paint.warn, changes.repeatableGone)],
    [
      "newly for",
      changes.against.kind === "nothing" ? undefined : listIn(paint.warn, changes.environmentsAdded),
    ],
    ["no longer for", listIn(paint.warn, changes.environmentsGone)],
    [
      "bodies",
      bodies === null
        ? undefined
        : paint.good(`${bodies.count} fetched and as signed, ${bodies.bytes} bytes`),
    ],
    ["misdescribed", misdescribedInWords(inspection, paint)],
  ]);
}

/** To be looked at before anybody signs: such a body would not run as its file reads. */
function misdescribedInWords({ bodies, manifest }: Inspection, paint: Paint): string | undefined {
  const labels = listIn(paint.bad, bodies?.misdescribed ?? []);
  return labels === undefined
    ? undefined
    : `${labels}: what the release says of them is not in the files, or its parser, ${printable(manifest.parser)}, reads them otherwise than ours`;
}

function versionInWords({ statement, changes: { against } }: Inspection, paint: Paint): string {
  const { version, epoch } = statement;
  const isNewEpoch = against.kind === "release" && against.epoch !== epoch;
  return `${version} (${isNewEpoch ? paint.warn(`epoch ${epoch}, after ${against.epoch}`) : `epoch ${epoch}`})`;
}

function placeInWords({ place }: Inspection, paint: Paint): string {
  switch (place) {
    case "newest":
      return ", the newest";
    case "waiting":
      return paint.warn(", not published: it waits for signatures");
    case "older":
      return "";
  }
}

/** Free text in an unproven statement: it may not draw a line of its own. */
function sourceInWords({ source }: Inspection["statement"]): string | undefined {
  return source === undefined ? undefined : `${printable(source.uri)} at ${source.gitCommit}`;
}

function signaturesInWords({ signatures, threshold }: Inspection): string {
  return signatures
    .map(({ keyId, subject, isTrusted }) => {
      const who = keyId ?? (subject === null ? "a key without a name" : printable(subject));
      return `${who}${isTrusted || threshold === null ? "" : " (not trusted)"}`;
    })
    .join("\n");
}

function basisInWords(against: Basis, paint: Paint): string {
  if (against.kind === "release") {
    const rank = `version ${against.version} (epoch ${against.epoch})`;
    return against.isTrusted === true ? rank : `${rank}, ${paint.warn("which nobody has verified")}`;
  }
  switch (against.why) {
    case "first":
      return "nothing: it follows no release";
    case "gone":
      return paint.warn("nothing: the release that it follows is not there");
    case "untrusted":
      return paint.bad(
        "nothing: this trust does not vouch for the release that it follows, so all of it counts as new",
      );
  }
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

function verdictInWords({ verdict, threshold, environment, place }: Inspection, paint: Paint): string {
  switch (verdict.kind) {
    case "verified":
      return paint.good(
        `verified for ${environment}, ${threshold ?? 1} ${threshold === 1 ? "signature" : "signatures"} needed`,
      );
    case "refused":
      if (place === "waiting" && verdict.error.code === "THRESHOLD")
        return `${paint.warn("waits")}: ${verdict.error.message} for ${environment}`;
      return `${paint.bad("refused")}: ${verdict.error.message} (${verdict.error.code})`;
    case "unknown":
      return paint.warn("not verified: no --trust was given");
  }
}

function listIn(color: (text: string) => string, names: readonly string[]): string | undefined {
  return names.length === 0 ? undefined : color(list(names));
}

function list(names: readonly string[]): string {
  if (names.length === 0) return "none";
  const more = names.length - 10;
  return more > 0 ? `${names.slice(0, 10).join(", ")} and ${more} more` : names.join(", ");
}
