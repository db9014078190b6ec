import type { Variables } from "./context.ts";

/** How a CI system's own variables name what a pipeline is about. */
interface System {
  /** a variable that only this system sets, and its value where that counts */
  readonly known: readonly [name: string, value?: string];
  readonly commit: string;
  readonly url: (of: (name: string) => string) => string;
}

const systems: readonly System[] = [
  {
    known: ["GITHUB_ACTIONS", "true"],
    commit: "GITHUB_SHA",
    url: (of) => `${of("GITHUB_SERVER_URL")}/${of("GITHUB_REPOSITORY")}/actions/runs/${of("GITHUB_RUN_ID")}`,
  },
  { known: ["GITLAB_CI", "true"], commit: "CI_COMMIT_SHA", url: (of) => of("CI_JOB_URL") },
  { known: ["CF_BUILD_ID"], commit: "CF_REVISION", url: (of) => of("CF_BUILD_URL") },
  { known: ["JENKINS_URL"], commit: "GIT_COMMIT", url: (of) => of("BUILD_URL") },
  { known: ["CIRCLECI", "true"], commit: "CIRCLE_SHA1", url: (of) => of("CIRCLE_BUILD_URL") },
  { known: ["BUILDKITE", "true"], commit: "BUILDKITE_COMMIT", url: (of) => of("BUILDKITE_BUILD_URL") },
];

/** Characters of a label's value that a server takes. */
const maxLabelChars = 256;

/**
 * Which commit and which pipeline ask: labels of the run, so that whoever looks at it later finds the way back. Empty
 * where no CI system is known by its variables.
 */
export function pipelineLabels(variables: Variables): Readonly<Record<string, string>> {
  const of = (name: string): string => variables[name] ?? "";
  const system = systems.find(({ known: [name, value] }) =>
    value === undefined ? of(name) !== "" : of(name) === value,
  );
  if (system === undefined) return {};
  return Object.fromEntries(
    Object.entries({ commit: of(system.commit), pipelineUrl: system.url(of) }).filter(
      ([, value]) => value.length <= maxLabelChars && /^[\x20-\x7e]+$/.test(value),
    ),
  );
}
