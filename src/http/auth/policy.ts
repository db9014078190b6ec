import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import { pointerTo, wordsOf } from "../issue.ts";
import { parseStrictJson } from "../json.ts";
import { githubSignature, hookActions, type Hook } from "./hook.ts";
import { platformOf, type IamFront, type Issuer, type Platform } from "./issuer.ts";
import { audienceProblem, lintIssuer, lintRule, lintWaking, type Finding } from "./lint.ts";
import { policySchema, type PolicyText } from "./policy-schema.ts";
import type { Rule, RuleCaller } from "./rule.ts";

/** Who may do what, as the policy file says; everything else is refused. */
export interface Policy {
  /** the only audience a token may name */
  readonly audience: string;
  readonly issuers: readonly Issuer[];
  readonly fronts: readonly IamFront[];
  readonly hooks: readonly Hook[];
  readonly rules: readonly Rule[];
  /** what a person should look at, although it loads */
  readonly warnings: readonly string[];
}

const maxPolicyBytes = 1024 * 1024;

/**
 * Reads a policy file.
 *
 * @param source - the file's text
 * @param targets - the configured targets; a rule may name only those. Undefined: any, for a look at the policy alone
 * @throws RunnerError `CONFIG` — naming every problem with its place in the file
 */
export function parsePolicy(source: string, targets: ReadonlySet<string> | undefined): Policy {
  if (Buffer.byteLength(source) > maxPolicyBytes) refuse([`larger than ${maxPolicyBytes} bytes`]);
  const parsed = v.safeParse(policySchema, readJson(source));
  if (!parsed.success) return refuse(wordsOf(parsed.issues));
  const written = parsed.output;
  const problems: string[] = [];
  const issuers = issuersOf(written, problems);
  const fronts = frontsOf(written, problems);
  const hooks = Object.entries(written.hooks).map(([name, entry]) => hookOf(name, entry));
  const audience = audienceProblem(written.audience);
  if (audience !== undefined) problems.push(`/audience: ${audience}`);
  for (const twice of repeated(written.rules.map((rule) => rule.id)))
    problems.push(`/rules: the id "${twice}" is there twice`);

  const rules = written.rules.map((rule, index) =>
    ruleOf(rule, index, { issuers: Object.keys(written.issuers), hooks, targets }, problems),
  );
  const findings = [
    ...issuers.flatMap(lintIssuer),
    ...rules.flatMap((rule) => lintRule(rule, kindOf(rule, written))),
    ...rules.flatMap((rule) =>
      issuers
        .filter(({ name }) => rule.from.kind === "issuer" && rule.from.issuer === name)
        .flatMap((issuer) => lintWaking(rule, issuer, kindOf(rule, written))),
    ),
  ];
  const texts = (severity: Finding["severity"]): string[] =>
    findings.flatMap((finding) => (finding.severity === severity ? [finding.message] : []));
  problems.push(...texts("error"));
  if (problems.length > 0) refuse(problems);
  return { audience: written.audience, issuers, fronts, hooks, rules, warnings: texts("warning") };
}

function issuersOf(written: PolicyText, problems: string[]): readonly Issuer[] {
  const issuers = Object.entries(written.issuers).flatMap(([name, entry]): Issuer[] => {
    if (entry.kind === "iam") return [];
    const { jwksUri, jwksFile } = entry;
    if ((jwksUri === undefined) === (jwksFile === undefined))
      problems.push(`${pointerTo(["issuers", name])}: needs either jwksUri or jwksFile`);
    return [
      {
        name,
        issuer: entry.issuer,
        keys: jwksFile === undefined ? { kind: "uri", uri: jwksUri ?? "" } : { kind: "file", path: jwksFile },
        algorithms: entry.algs,
        maxTokenAgeMs: entry.maxTokenAge,
        typ: entry.typ ?? null,
      },
    ];
  });
  for (const twice of repeated(issuers.map(({ issuer }) => issuer)))
    problems.push(`/issuers: "${twice}" is there twice`);
  return issuers;
}

function frontsOf(written: PolicyText, problems: string[]): readonly IamFront[] {
  const fronts = Object.entries(written.issuers).flatMap(([name, entry]): IamFront[] =>
    entry.kind === "iam" ? [{ name, frontend: entry.frontend }] : [],
  );
  for (const twice of repeated(fronts.map(({ frontend }) => frontend)))
    problems.push(`/issuers: the frontend "${twice}" is there twice`);
  return fronts;
}

function hookOf(name: string, entry: PolicyText["hooks"][string]): Hook {
  switch (entry.kind) {
    case "sns":
      return { kind: "sns", name, topicArn: entry.topicArn };
    case "standard-webhooks":
      return { kind: "standard-webhooks", name, secretFiles: [entry.secretFile].flat() };
    case "github":
      return { kind: "hmac", name, ...githubSignature, secretFiles: [entry.secretFile].flat() };
    case "hmac": {
      const { header, prefix, encoding } = entry;
      return {
        kind: "hmac",
        name,
        header: header.toLowerCase(),
        prefix,
        encoding,
        pingHeader: null,
        secretFiles: [entry.secretFile].flat(),
      };
    }
  }
}

/** What a rule may refer to. */
interface Known {
  readonly issuers: readonly string[];
  readonly hooks: readonly Hook[];
  readonly targets: ReadonlySet<string> | undefined;
}

function ruleOf(rule: PolicyText["rules"][number], index: number, known: Known, problems: string[]): Rule {
  const at = (...path: (string | number)[]): string => pointerTo(["rules", index, ...path]);
  for (const [order, target] of rule.allow.targets.entries()) {
    if (target !== "*" && known.targets?.has(target) === false)
      problems.push(`${at("allow", "targets", order)}: no target is called "${target}"`);
  }
  const from = callerOf(rule, at, known, problems);
  if (from.kind === "hook") {
    const tooMuch = rule.allow.actions.filter((action) => !hookActions.some((allowed) => allowed === action));
    if (tooMuch.length > 0)
      problems.push(
        `${at("allow", "actions")}: a webhook cannot be allowed ${tooMuch.map((action) => `"${action}"`).join(", ")}; only ${hookActions.join(", ")}`,
      );
  }
  return {
    id: rule.id,
    from,
    targets: rule.allow.targets,
    actions: rule.allow.actions,
    isDigestRequired: rule.require?.digest ?? false,
    perHour: rule.limit?.perHour ?? null,
  };
}

function callerOf(
  rule: PolicyText["rules"][number],
  at: (...path: (string | number)[]) => string,
  { issuers, hooks }: Known,
  problems: string[],
): RuleCaller {
  if (rule.hook !== undefined) {
    if (rule.issuer !== undefined || rule.match !== undefined)
      problems.push(`${at("hook")}: stands in place of issuer and match, not beside them`);
    if (!hooks.some(({ name }) => name === rule.hook))
      problems.push(`${at("hook")}: no hook is called "${rule.hook}"`);
    return { kind: "hook", hook: rule.hook };
  }
  if (rule.issuer === undefined) problems.push(`${at("issuer")}: is missing`);
  else if (!issuers.includes(rule.issuer))
    problems.push(`${at("issuer")}: no issuer is called "${rule.issuer}"`);
  const claims = Object.entries(rule.match ?? {});
  if (claims.length === 0)
    problems.push(
      `${at("match")}: needs at least one claim; an empty one would match every token of the issuer`,
    );
  for (const [claim] of claims) {
    if (claim.startsWith("/") && /~(?![01])/.test(claim))
      problems.push(`${at("match", claim)}: "~" in a JSON Pointer is written ~0, "/" ~1`);
  }
  const match = claims.map(([claim, value]) => ({ claim, anyOf: Array.isArray(value) ? value : [value] }));
  return { kind: "issuer", issuer: rule.issuer ?? "", match };
}

/** Whose traps a rule is held against. */
function kindOf(rule: Rule, written: PolicyText): Platform | "iam" | undefined {
  if (rule.from.kind === "hook") return undefined;
  const { issuer } = rule.from;
  const entry = Object.hasOwn(written.issuers, issuer) ? written.issuers[issuer] : undefined;
  if (entry === undefined) return undefined;
  return entry.kind === "iam" ? "iam" : (entry.platform ?? platformOf(entry.issuer));
}

function readJson(source: string): unknown {
  try {
    return parseStrictJson(source, 16);
  } catch (error) {
    return refuse([error instanceof SyntaxError ? error.message : "not JSON"]);
  }
}

function repeated(values: readonly string[]): readonly string[] {
  return [...new Set(values.filter((value, index) => values.indexOf(value) !== index))];
}

function refuse(problems: readonly string[]): never {
  throw new RunnerError("CONFIG", `the policy cannot be used: ${problems.join("; ")}`, {
    hint: "correct the policy file; nothing is allowed until it loads",
    fields: { problems: problems.length },
  });
}
