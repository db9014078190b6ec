import { RunnerError } from "../error.ts";
import { defaultEnvironment, type TargetSettings } from "./settings.ts";

/** A target of the configuration whose database is a service's. */
export interface ServiceTarget {
  readonly name: string;
  readonly settings: TargetSettings;
}

/**
 * The target that a service's migrations run on: as the asking target's `services` says, else the one target of the
 * same environment whose stream is called like the service.
 *
 * @param targets - of the configuration file; empty without one
 * @throws RunnerError `CONFIG` — none is, or several could be
 */
export function findService(
  service: string,
  asking: Pick<TargetSettings, "name" | "environment" | "services">,
  targets: ReadonlyMap<string, TargetSettings>,
): ServiceTarget {
  const named = asking.services[service];
  const settings = named === undefined ? undefined : targets.get(named);
  if (named !== undefined && settings !== undefined) return { name: named, settings };
  const { environment = defaultEnvironment } = asking;
  const [first, ...others] = [...targets].filter(
    ([, target]) => target.stream === service && (target.environment ?? defaultEnvironment) === environment,
  );
  if (first !== undefined && others.length === 0) return { name: first[0], settings: first[1] };
  const known =
    first === undefined
      ? "nothing says which database is its own"
      : `${others.length + 1} targets could be it: ${[first, ...others].map(([name]) => name).join(", ")}`;
  throw new RunnerError("CONFIG", `a migration depends on the service "${service}", and ${known}`, {
    hint:
      asking.name === undefined
        ? `write a configuration file with a target for "${service}", and name it with --config`
        : `name its target in the configuration file: services: { ${service}: <target> } of "${asking.name}"`,
    fields: { service },
  });
}
