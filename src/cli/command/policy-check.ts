import { RunnerError } from "../../error.ts";
import { listFlag, switchFlag, textFlag } from "../flag.ts";
import { config, environment, target } from "../flags.ts";
import type { PolicyQuestion } from "../policy-report.ts";
import type { Invocation, Verb } from "../verb.ts";

const policy = textFlag("policy", {
  placeholder: "<file>",
  text: "the policy file",
  explained: "as the configuration says",
});
const targets = listFlag("targets", {
  placeholder: "<names>",
  text: "the targets that there are, in place of --config; with commas between, can be repeated",
});
const tokenFile = textFlag("token-file", {
  placeholder: "<file>",
  text: "file with a bearer token; it is verified as the server does, and never shown",
});
const claims = textFlag("claims", {
  placeholder: "<file>",
  text: "JSON document of claims in place of a token; no signature is checked then",
});
const issuer = textFlag("issuer", {
  placeholder: "<name>",
  text: "with --claims: whose claims they are, as the policy calls it",
  explained: "by the claim iss",
});
const hook = textFlag("hook", {
  placeholder: "<name>",
  text: "a webhook in place of a token, as the policy calls it",
});
const file = { ...config, text: "the server's configuration file, for its policy, targets and environments" };
const where = { ...environment, text: "with --targets: the target's environment" };
const name = { ...target, text: "the target that is asked for" };
const action = textFlag("action", {
  placeholder: "<action>",
  text: "what is asked for: apply, status, rollback, …",
});
const digest = switchFlag("digest", { text: "the request names the release's digest" });

/** Exit code of a request that would be refused, as the server's answer would have it. */
const refused = 23;

/** `lockkeeper policy check` */
export const policyCheck: Verb = {
  name: "policy check",
  about:
    "Reads a policy as the server does, and says what is wrong or unwise in it. With a token, claims or a hook it explains what a request would come to: " +
    "which rules are for this caller, which claim is not as a rule wants it, what would have to change. " +
    "Key sets are read only for a token, and the secrets of webhooks never: a pipeline that checks a policy need not have them.",
  parameters: [],
  flags: [policy, file, targets, tokenFile, claims, issuer, hook, name, action, where, digest],
  examples: [
    {
      line: "lockkeeper policy check --config lockkeeper.yaml",
      means: "before the server is restarted with it",
    },
    {
      line: "lockkeeper policy check --config lockkeeper.yaml --token-file token --target orders-prod --action apply --digest",
      means: "why is my pipeline refused",
    },
    {
      line: "lockkeeper policy check --policy policy.json --targets orders-prod --claims claims.json --target orders-prod --action apply",
      means: "a rule tried out before there is a token",
    },
  ],
  exits: [0, 2, refused],
  async run(invocation) {
    const { context, output } = invocation;
    const question = await questionOf(invocation);
    const [wiring, { formatPolicyReport }] = await Promise.all([context.wire(), import("../show-policy.ts")]);
    const report = await wiring.checkPolicy(question);
    output.result(report, () => formatPolicyReport(report, output.paint.out));
    return report.request === null || report.request.allowed ? 0 : refused;
  },
};

async function questionOf(invocation: Invocation): Promise<PolicyQuestion> {
  const { get } = invocation;
  const names = get(targets).flatMap((text) => text.split(","));
  const caller = await callerOf(invocation);
  const [wanted, act] = [get(name), get(action)];
  if (caller !== undefined && (wanted === undefined || act === undefined)) {
    const missing = [
      ...(wanted === undefined ? ["--target <name>"] : []),
      ...(act === undefined ? ["--action <action>"] : []),
    ];
    throw new RunnerError(
      "USAGE",
      `${missing.join(" and ")} ${missing.length === 1 ? "is" : "are"} missing: what does the caller ask for?`,
      {
        hint: "for instance --target orders-prod --action apply, with --digest where the request names one",
      },
    );
  }
  if (caller === undefined && act !== undefined) {
    throw new RunnerError("USAGE", "--action is given, and nobody who asks for it", {
      hint: "name who asks with --token-file, --claims or --hook",
    });
  }
  return {
    policy: get(policy),
    config: get(file),
    targets: names.length === 0 ? undefined : names,
    ask:
      caller === undefined || wanted === undefined || act === undefined
        ? undefined
        : { caller, target: wanted, action: act, environment: get(where), hasDigest: get(digest) },
  };
}

async function callerOf({
  get,
}: Pick<Invocation, "get">): Promise<NonNullable<PolicyQuestion["ask"]>["caller"] | undefined> {
  const [token, document, sender] = [get(tokenFile), get(claims), get(hook)];
  if ([token, document, sender].filter((given) => given !== undefined).length > 1)
    throw new RunnerError("USAGE", "--token-file, --claims and --hook: one of them, not several");
  if (token !== undefined) {
    const { readSecretFile } = await import("../secret-file.ts");
    return { kind: "token", token: await readSecretFile(token, "--token-file") };
  }
  if (document !== undefined) return { kind: "claims", file: document, issuer: get(issuer) };
  return sender === undefined ? undefined : { kind: "hook", hook: sender };
}
