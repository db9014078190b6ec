import * as v from "valibot";

import { compareVersions, isVersion, versionKey } from "../migration/version.ts";
import { releaseLimits } from "./limits.ts";
import { nameText } from "./schema.ts";

/** What a service says of its migrations to other services: which of them break something, and what they need elsewhere. */
export interface Registry {
  /** the name by which other services depend on this one */
  readonly service: string;
  /** the database that its migrations run on, for people */
  readonly database: string;
  readonly migrations: readonly RegisteredMigration[];
}

/** One migration of a registry; those that nothing is said of are not listed. */
export interface RegisteredMigration {
  readonly version: string;
  readonly description?: string;
  /** what uses the database as it was does not go on working: applied only where the request allows it */
  readonly breaking: boolean;
  readonly dependencies: readonly Dependency[];
}

/** A service whose database must have applied a version, or a higher one, before. */
export interface Dependency {
  readonly service: string;
  readonly minVersion: string;
}

/** A version as a file name or a registry writes it. */
export const versionText = v.pipe(
  v.string("a version"),
  v.maxLength(releaseLimits.nameLength, "a version"),
  v.check(isVersion, "a version"),
);

/** One line for people: what terminals and logs can show. */
export const lineText = v.pipe(
  v.string("a text"),
  v.regex<string, string>(/^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]*$/u, "one line without control characters"),
  v.maxLength(releaseLimits.descriptionLength, `at most ${releaseLimits.descriptionLength} characters`),
);

/** A registry as a manifest holds it. */
export const registrySchema = v.strictObject({
  service: nameText,
  database: v.pipe(lineText, v.minLength(1, "the name of a database")),
  migrations: v.pipe(
    v.array(
      v.strictObject({
        version: versionText,
        description: v.exactOptional(lineText),
        breaking: v.boolean(),
        dependencies: v.pipe(
          v.array(v.strictObject({ service: nameText, minVersion: versionText })),
          v.maxLength(releaseLimits.dependencies, `at most ${releaseLimits.dependencies} dependencies`),
        ),
      }),
    ),
    v.maxLength(releaseLimits.migrations, `at most ${releaseLimits.migrations} migrations`),
  ),
});

/** Something that a registry's shape cannot say, and where it stands: `["migrations", 3, "version"]`. */
export interface RegistryProblem {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

/**
 * What is wrong with a registry beside the migrations that it is about: a version that is not there or stands there
 * twice, a dependency on the service itself, two on one service.
 *
 * @param versions - of the release or folder, in any order and spelling
 */
export function registryProblems(
  registry: Registry,
  versions: readonly string[],
): readonly RegistryProblem[] {
  const known = new Set(versions.map(versionKey));
  const seen = new Set<string>();
  return registry.migrations.flatMap(({ version, dependencies }, index) => {
    const problems: RegistryProblem[] = [];
    const at = ["migrations", index];
    const key = versionKey(version);
    if (!known.has(key))
      problems.push({ path: [...at, "version"], message: `there is no migration "${version}"` });
    if (seen.has(key))
      problems.push({ path: [...at, "version"], message: `version "${version}" stands there twice` });
    seen.add(key);
    const services = new Set<string>();
    for (const [place, { service }] of dependencies.entries()) {
      const path = [...at, "dependencies", place, "service"];
      if (service === registry.service)
        problems.push({
          path,
          message: `"${service}" cannot depend on itself: its own order is kept anyway`,
        });
      if (services.has(service))
        problems.push({ path, message: `"${service}" stands there twice for version "${version}"` });
      services.add(service);
    }
    return problems;
  });
}

/** What is known of one service when cycles are looked for. */
export interface ServiceRelease {
  readonly service: string;
  /** in the order in which they are applied */
  readonly versions: readonly string[];
  /** undefined: it says nothing of its migrations */
  readonly registry: Registry | undefined;
}

/** One link of a cycle: `version` of `service` waits for `needs`. */
export interface CycleLink {
  readonly service: string;
  readonly version: string;
  readonly needs: Dependency;
}

/**
 * Migrations that wait for each other in a circle, so that none of them could ever be applied; undefined where
 * every service can be brought to the end of its release.
 *
 * All services are brought up together, each as far as its dependencies let it. Who cannot go on then waits for
 * another one that cannot either, and following them leads round. A service that is not among `services`, or a
 * version that its release does not have yet, holds nobody up: that is for the runs to see.
 */
export function findCycle(services: readonly ServiceRelease[]): readonly CycleLink[] | undefined {
  const tracks = new Map(services.map((release) => [release.service, trackOf(release)]));
  const isThere = ({ service, minVersion }: Dependency): boolean => {
    const track = tracks.get(service);
    if (track === undefined) return true;
    const index = track.versions.findIndex((version) => compareVersions(version, minVersion) >= 0);
    return index < track.applied;
  };
  for (let hasMoved = true; hasMoved;) {
    hasMoved = false;
    for (const track of tracks.values()) {
      while (track.applied < track.versions.length && nextNeeds(track).every(isThere)) {
        track.applied += 1;
        hasMoved = true;
      }
    }
  }
  const linkOf = (service: string): CycleLink | undefined => {
    const track = tracks.get(service);
    const version = track?.versions[track.applied];
    if (track === undefined || version === undefined) return undefined;
    const needs = nextNeeds(track).find((dependency) => !isThere(dependency));
    return needs === undefined ? undefined : { service, version, needs };
  };
  const first = services.map(({ service }) => linkOf(service)).find((link) => link !== undefined);
  if (first === undefined) return undefined;
  const way: CycleLink[] = [];
  for (let link: CycleLink | undefined = first; link !== undefined; link = linkOf(link.needs.service)) {
    const { service } = link;
    const start = way.findIndex((earlier) => earlier.service === service);
    if (start >= 0) return way.slice(start);
    way.push(link);
  }
  return undefined;
}

/** How far a service is. */
interface Track {
  readonly versions: readonly string[];
  readonly needs: ReadonlyMap<string, readonly Dependency[]>;
  applied: number;
}

function trackOf({ versions, registry }: ServiceRelease): Track {
  const needs = (registry?.migrations ?? []).map(
    ({ version, dependencies }) => [versionKey(version), dependencies] as const,
  );
  return { versions, needs: new Map(needs), applied: 0 };
}

function nextNeeds({ versions, needs, applied }: Track): readonly Dependency[] {
  return needs.get(versionKey(versions[applied] ?? "")) ?? [];
}
