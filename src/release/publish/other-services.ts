import { RunnerError } from "../../error.ts";
import { compareVersions } from "../../migration/version.ts";
import type { Source } from "../../source/source.ts";
import { inspectRelease } from "../review/inspect.ts";
import { findCycle } from "../registry.ts";
import type { CycleLink, Registry, ServiceRelease } from "../registry.ts";

/** A service's release that is about to be published. */
export interface OwnRelease {
  readonly registry: Registry;
  /** in the order in which they are applied */
  readonly versions: readonly string[];
}

/**
 * Holds a registry against the newest releases of the services that it depends on, as far as it is said where they are.
 *
 * Those releases are not verified: they only tell whether this one could ever be applied beside them.
 *
 * @param sources - prefixes of other services' releases
 * @returns what was not checked, or is not there yet, for people
 * @throws RunnerError `DEPENDENCY_CYCLE`; what keeps a release from being read at all
 */
export async function checkOtherServices(
  own: OwnRelease,
  sources: readonly Source[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const read = await Promise.all(sources.map((source) => readService(source, signal)));
  const others = read.filter((other) => "service" in other);
  const services = [{ service: own.registry.service, ...own }, ...others];
  const cycle = findCycle(services);
  if (cycle !== undefined) throw circular(cycle);
  const known = new Map(services.map((release) => [release.service, release]));
  return [
    ...read.flatMap((other) => ("warning" in other ? [other.warning] : [])),
    ...unknownServices(services, known),
    ...unreleasedVersions(own.registry, known),
  ];
}

async function readService(
  source: Source,
  signal: AbortSignal,
): Promise<ServiceRelease | { readonly warning: string }> {
  try {
    const { manifest } = await inspectRelease({ source, withBodies: false, now: new Date() }, signal);
    const { registry, stream, migrations } = manifest;
    return {
      service: registry?.service ?? stream,
      versions: migrations.map(({ version }) => version),
      registry,
    };
  } catch (cause) {
    if (!(cause instanceof RunnerError) || cause.code !== "RELEASE_NOT_FOUND") throw cause;
    return {
      warning: `no release is published under ${source.url}: what its service depends on was not checked`,
    };
  }
}

/** Services that somebody depends on and whose registry nobody could look into: a cycle may lead through them. */
function unknownServices(
  services: readonly ServiceRelease[],
  known: ReadonlyMap<string, ServiceRelease>,
): readonly string[] {
  const wanted = services.flatMap(({ registry }) =>
    (registry?.migrations ?? []).flatMap(({ dependencies }) => dependencies.map(({ service }) => service)),
  );
  const unknown = [...new Set(wanted)].filter((service) => !known.has(service));
  if (unknown.length === 0) return [];
  const names = unknown.map((service) => `"${service}"`).join(", ");
  return [
    `not checked: whether dependencies lead round through ${names}; say where its releases are with --registry-of`,
  ];
}

function unreleasedVersions(
  { migrations }: Registry,
  known: ReadonlyMap<string, ServiceRelease>,
): readonly string[] {
  return migrations.flatMap(({ version, dependencies }) =>
    dependencies.flatMap(({ service, minVersion }) => {
      const other = known.get(service);
      if (other === undefined) return [];
      if (other.versions.some((there) => compareVersions(there, minVersion) >= 0)) return [];
      return [
        `version ${version} depends on "${service}" ${minVersion}, which its newest release does not have yet`,
      ];
    }),
  );
}

function circular(cycle: readonly CycleLink[]): RunnerError {
  const way = cycle.map(
    ({ service, version, needs }) => `"${service}" ${version} needs "${needs.service}" ${needs.minVersion}`,
  );
  return new RunnerError(
    "DEPENDENCY_CYCLE",
    `the dependencies lead round, so none of these could ever be applied: ${way.join(", ")}`,
    {
      hint: "split one of the migrations, so that one part can do without the other service",
      fields: { services: cycle.map(({ service }) => service).join(" ") },
    },
  );
}
