import type { Variables } from "./context.ts";

/** Characters of a label's value that a server takes. */
const maxLabelChars = 256;

/**
 * Which commit and which pipeline ask, by the variables of GitHub and GitLab: labels of the run, so that whoever looks at
 * it later finds the way back. Empty anywhere else.
 */
export function pipelineLabels(variables: Variables): Readonly<Record<string, string>> {
  const of = (name: string): string => variables[name] ?? "";
  if (of("GITHUB_ACTIONS") === "true") {
    return present({
      commit: of("GITHUB_SHA"),
      pipelineUrl: `${of("GITHUB_SERVER_URL")}/${of("GITHUB_REPOSITORY")}/actions/runs/${of("GITHUB_RUN_ID")}`,
    });
  }
  if (of("GITLAB_CI") === "true")
    return present({ commit: of("CI_COMMIT_SHA"), pipelineUrl: of("CI_JOB_URL") });
  return {};
}

function present(labels: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(labels).filter(
      ([, value]) => value !== "" && value.length <= maxLabelChars && /^[\x20-\x7e]*$/.test(value),
    ),
  );
}
