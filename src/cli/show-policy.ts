import type { Paint } from "./output.ts";
import type { PolicyReport, PolicyVerdict, ReportedRule } from "./policy-report.ts";

/** A policy, and what a request would come to, as people read it. */
export function formatPolicyReport(report: PolicyReport, paint: Paint): string {
  const { file, issuers, hooks, rules, audience, warnings, targetsChecked, request } = report;
  const counts = [plural(issuers, "issuer"), plural(hooks, "hook"), plural(rules, "rule")].join(", ");
  return [
    `${paint.good("loads")}     ${file}: ${counts}, audience ${audience}`,
    ...(targetsChecked ? [] : [paint.dim("          targets were not checked: name --config or --targets")]),
    ...warnings.map((warning) => `${paint.warn("warning")}   ${warning}`),
    ...(request === null ? [] : ["", ...formatVerdict(request, paint)]),
  ].join("\n");
}

function formatVerdict(verdict: PolicyVerdict, paint: Paint): readonly string[] {
  return [
    ...formatCaller(verdict, paint),
    ...verdict.rules.flatMap((rule) => formatRule(rule, verdict, paint)),
    "",
    verdict.allowed
      ? `${paint.good("allowed")}   ${verdict.action} on ${verdict.target}, by rule ${verdict.rule ?? ""}`
      : `${paint.bad("refused")}   ${verdict.action} on ${verdict.target}: ${verdict.code ?? ""}${
          verdict.reason === null ? "" : `, ${verdict.reason}`
        }`,
    ...verdict.advice.map((advice) => `to change ${advice}`),
  ];
}

function formatCaller({ caller, proof, unverified }: PolicyVerdict, paint: Paint): readonly string[] {
  if (unverified !== null) {
    const said = Object.entries(unverified).map(([name, value]) => `  ${name}: ${value}`);
    return ["the token says, and nothing vouches for it:", ...said];
  }
  if (caller === null) return [];
  const how = { signature: "", hook: "", claims: paint.warn(" (claims as given: no signature was checked)") };
  return [`caller    ${caller.name}: ${caller.subject}${how[proof]}`];
}

function formatRule(rule: ReportedRule, { target, action }: PolicyVerdict, paint: Paint): readonly string[] {
  const words = [
    rule.matches ? paint.good("knows the caller") : "does not know the caller",
    ...(rule.isForTarget ? [] : [`says nothing of ${target}`]),
    ...(rule.allowsAction ? [] : [`does not allow ${action}`]),
    ...(rule.isDigestRequired ? ["requires a digest"] : []),
  ];
  return [
    `rule      ${rule.id}: ${words.join(", ")}`,
    ...rule.claims.map(({ claim, wanted, found, isEqual }) =>
      isEqual
        ? `  ${paint.good("=")} ${claim}: ${found ?? ""}`
        : `  ${paint.bad("≠")} ${claim}: wants ${wanted.map((value) => JSON.stringify(value)).join(" or ")}, is ${found ?? "missing"}`,
    ),
  ];
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}
