import type { Issuer, Platform } from "./issuer.ts";
import type { ClaimMatch, Rule } from "./rule.ts";

/** A mistake that others have made with an issuer; an error keeps the policy from loading. */
export interface Finding {
  readonly severity: "error" | "warning";
  readonly message: string;
}

const hourMs = 3600_000;
/** What changes a database, unlike what only looks at it. */
const looks: ReadonlySet<string> = new Set(["status", "plan", "verify"]);

/** Audiences that an issuer writes when nobody asked for one, or that are meant for somebody else. */
const othersAudiences =
  /^(https:\/\/kubernetes\.default(\.svc.*)?|api|sts\.amazonaws\.com|https:\/\/github\.com\/[^/]+\/?|sigstore|vault|https:\/\/vault\..*)$/;

/** Why tokens for this audience would not have been made for us; undefined where it is our own. */
export function audienceProblem(audience: string): string | undefined {
  if (!othersAudiences.test(audience)) return undefined;
  return `"${audience}" is what tokens for somebody else carry; use this server's own address`;
}

/** What is unwise about an issuer whatever its rules. */
export function lintIssuer({ name, maxTokenAgeMs }: Issuer): readonly Finding[] {
  if (maxTokenAgeMs <= hourMs) return [];
  return [
    warning(
      `issuer "${name}" is believed for ${maxTokenAgeMs / hourMs} hours; no platform needs more than 60m`,
    ),
  ];
}

/** What is unwise about a rule that lets tokens of this issuer wake. */
export function lintWaking(
  { id, actions }: Rule,
  { name, maxTokenAgeMs }: Issuer,
  platform: Platform | "iam" | undefined,
): readonly Finding[] {
  return when(platform === "google" && actions.includes("wake") && maxTokenAgeMs < hourMs, () =>
    warning(
      `rule "${id}" lets Google's events wake, whose token may be an hour old: issuer "${name}" needs "maxTokenAge": "60m"`,
    ),
  );
}

/** What is wrong or unwise about a rule for callers of a platform. */
export function lintRule(rule: Rule, platform: Platform | "iam" | undefined): readonly Finding[] {
  if (rule.from.kind === "hook" || platform === undefined) return [];
  const { match } = rule.from;
  const findings = traps[platform](
    match,
    rule.actions.some((action) => !looks.has(action)),
  );
  return findings.map(({ severity, message }) => ({ severity, message: `rule "${rule.id}" ${message}` }));
}

type Trap = (match: readonly ClaimMatch[], changes: boolean) => readonly Finding[];

const traps: Readonly<Record<Platform | "iam", Trap>> = {
  github: (match) => [
    ...fewClaims(match),
    ...when(has(match, "sub"), () =>
      error(
        'compares "sub", whose form differs between repositories and has changed; use "repository_id" and others',
      ),
    ),
    ...when(!has(match, "repository_id") && !has(match, "repository_owner_id"), () =>
      error(
        'compares no id; names of repositories and owners can be taken over, "repository_id" and "repository_owner_id" cannot',
      ),
    ),
    ...when(values(match, "event_name").includes("pull_request_target"), () =>
      error('takes "pull_request_target", which strangers start with the rights of the base branch'),
    ),
    ...when(values(match, "event_name").includes("pull_request"), () =>
      warning('takes "pull_request": what runs there has not been merged yet'),
    ),
    ...when(!has(match, "event_name"), () =>
      warning(
        'does not compare "event_name", so it takes pull_request_target too; list push, workflow_dispatch, release',
      ),
    ),
  ],
  gitlab: (match, changes) => [
    ...fewClaims(match),
    ...when(!has(match, "project_id") && !has(match, "namespace_id"), () =>
      error(
        'compares no id; names of projects and groups can be taken over, "project_id" and "namespace_id" cannot',
      ),
    ),
    ...match.flatMap(({ claim, anyOf }) =>
      anyOf.some((value) => typeof value === "boolean")
        ? [error(`compares "${claim}" with a boolean, and GitLab writes texts: "true"`)]
        : [],
    ),
    ...when(values(match, "pipeline_source").includes("merge_request_event"), () =>
      error('takes "merge_request_event", which forks start, with claims of their own'),
    ),
    ...when(changes && !isExactly(match, "ref_protected", "true"), () =>
      error('changes databases, so it has to compare "ref_protected" with "true" (a text)'),
    ),
    ...when(!has(match, "pipeline_source"), () =>
      warning(
        'does not compare "pipeline_source", so it takes merge_request_event too; list push, web, schedule',
      ),
    ),
  ],
  google: (match) => [
    ...when(!has(match, "sub"), () =>
      error('does not compare "sub": the e-mail of a deleted service account can be given to another'),
    ),
    ...when(has(match, "email") && !isExactly(match, "email_verified", true), () =>
      error('compares "email", so it has to compare "email_verified" with true (a boolean)'),
    ),
  ],
  kubernetes: (match) => [
    ...when(!has(match, "sub") && !has(match, "/kubernetes.io/serviceaccount/uid"), () =>
      error('names no service account; compare "sub" (system:serviceaccount:<namespace>:<name>)'),
    ),
    ...when(!has(match, "/kubernetes.io/serviceaccount/uid"), () =>
      warning(
        'does not compare "/kubernetes.io/serviceaccount/uid": whoever may delete and create service accounts can take the name over',
      ),
    ),
  ],
  aws: (match) => [
    ...when(!has(match, "sub"), () => error('does not compare "sub", the ARN of the role')),
    ...when(
      match.some(({ claim }) => claim.startsWith("/https:~1~1sts.amazonaws.com~1/request_tags")),
      () => error("compares a request tag, which whoever asks for the token chooses"),
    ),
    ...when(!has(match, "/https:~1~1sts.amazonaws.com~1/aws_account"), () =>
      warning('does not compare the account, "/https:~1~1sts.amazonaws.com~1/aws_account"'),
    ),
  ],
  iam: (match) => [
    ...when(has(match, "session"), () =>
      error('compares "session", a name that whoever takes the role chooses'),
    ),
    ...when(!has(match, "account"), () =>
      error('does not compare "account": users and roles of any account may have the same name'),
    ),
    ...when(!["role", "user", "id"].some((claim) => has(match, claim)), () =>
      error('names neither "role" nor "user" nor "id", so everybody of the account would be let in'),
    ),
  ],
};

function fewClaims(match: readonly ClaimMatch[]): readonly Finding[] {
  return when(match.length < 2, () =>
    error("compares one claim only; a token has several that should be pinned"),
  );
}

function has(match: readonly ClaimMatch[], claim: string): boolean {
  return match.some((one) => isOf(one, claim));
}

/** By its name, or by the pointer that is the same. */
function isOf({ claim: written }: ClaimMatch, claim: string): boolean {
  return written === claim || written === `/${claim}`;
}

function values(match: readonly ClaimMatch[], claim: string): readonly unknown[] {
  return match.flatMap((one) => (isOf(one, claim) ? one.anyOf : []));
}

function isExactly(match: readonly ClaimMatch[], claim: string, value: unknown): boolean {
  const wanted = values(match, claim);
  return wanted.length > 0 && wanted.every((one) => one === value);
}

function when(condition: boolean, finding: () => Finding): readonly Finding[] {
  return condition ? [finding()] : [];
}

function error(message: string): Finding {
  return { severity: "error", message };
}

function warning(message: string): Finding {
  return { severity: "warning", message };
}
