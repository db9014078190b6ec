import { nearest } from "../cli/nearest.ts";
import type { ConfigText } from "./config-schema.ts";

/** What is wrong at a place of a configuration. */
export interface ReferenceProblem {
  /** from the top: `["targets", "orders-prod", "trust"]` */
  readonly keys: readonly (string | number)[];
  readonly message: string;
}

/** What the schema cannot see: names that must be found elsewhere in the file. */
export function referenceProblems(config: ConfigText): readonly ReferenceProblem[] {
  const names = Object.keys(config.targets);
  if (names.length === 0) return [{ keys: ["targets"], message: "expected at least one target" }];
  return [...services(config, names), ...notified(config, names), ...trusted(config)];
}

/** Services whose target is not in the file. */
function services({ targets }: ConfigText, names: readonly string[]): readonly ReferenceProblem[] {
  return Object.entries(targets).flatMap(([name, target]) =>
    Object.entries(target.services)
      .filter(([, wanted]) => !names.includes(wanted))
      .map(([service, wanted]) => ({
        keys: ["targets", name, "services", service],
        message: absent(wanted, "targets", names),
      })),
  );
}

/** Targets that somebody is to be told of, and that are not in the file. */
function notified({ notify }: ConfigText, names: readonly string[]): readonly ReferenceProblem[] {
  return notify.flatMap(({ targets = [] }, entry) =>
    targets.flatMap((wanted, index) =>
      names.includes(wanted)
        ? []
        : [{ keys: ["notify", entry, "targets", index], message: absent(wanted, "targets", names) }],
    ),
  );
}

function trusted({ trust, targets }: ConfigText): readonly ReferenceProblem[] {
  const trusts = Object.keys(trust);
  return Object.entries(targets).flatMap(([name, target]) =>
    target.trust === undefined || trusts.includes(target.trust)
      ? []
      : [{ keys: ["targets", name, "trust"], message: absent(target.trust, "trust", trusts) }],
  );
}

function absent(name: string, section: string, names: readonly string[]): string {
  const meant = nearest(name, names);
  const others = names.length === 0 ? `there is no ${section} section` : `there are ${names.join(", ")}`;
  return `"${name}" is not in ${section}; ${meant === undefined ? others : `did you mean ${meant}?`}`;
}
