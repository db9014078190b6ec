import { RunnerError } from "../error.ts";
import type { TrustAnchor } from "../release/trust/anchor.ts";
import { formatChainEnd } from "../release/chain.ts";
import type { IssuedRelease, IssueOutcome } from "../release/publish/issue.ts";
import { named, parseCount, required, switchFlag, textFlag } from "./flag.ts";
import type { Flag } from "./flag.ts";
import { trust } from "./flags.ts";
import type { Paint } from "./output.ts";

/** Of every verb that issues something for a stream. */
export const streamName = required(
  named(
    textFlag("stream", {
      placeholder: "<name>",
      text: "name of the release stream: runners ask for exactly this one",
    }),
  ),
);

/** Of every verb that issues releases: days. */
export const expires: Flag<number> = {
  ...textFlag("expires", {
    placeholder: "<days>",
    text: "for how long the release may be applied",
    fallback: "90d",
  }),
  from(texts, origin) {
    const last = texts.at(-1) ?? "90d";
    const days = parseCount(last.replace(/d$/, ""), 1);
    if (days !== undefined && days <= 36_500) return days;
    throw new RunnerError(
      "USAGE",
      `${origin}: expected a number of days such as 90d, got ${JSON.stringify(last)}`,
    );
  },
};

/** Of every verb that issues releases: whom the runners trust. */
export const signers = {
  ...trust,
  text: "what runners trust: the release becomes the newest only when its keys meet the threshold; also names the signers of earlier releases; can be repeated",
};

/** Of schedules, which would else believe the bucket. */
export const expected = textFlag("release", {
  placeholder: "<digest>",
  text: "the release that must be the newest; to be said where it is known from elsewhere than the bucket",
  explained: "what the bucket says",
});

/** Of every verb that issues releases. */
export const dryRun = switchFlag("dry-run", { text: "everything but the writing" });

/** What `--trust` names; undefined where it was not given. */
export async function readTrust(paths: readonly string[]): Promise<TrustAnchor | undefined> {
  const [first, ...rest] = paths;
  if (first === undefined) return undefined;
  return (await import("../release/trust/trust-file.ts")).readTrustFiles([first, ...rest]);
}

/** A release and what became of it, as it was issued. */
export type Issued = IssuedRelease & { readonly outcome: IssueOutcome };

/** An issued release as programs read it. */
export function describeIssue(result: Issued, stream: string): Record<string, unknown> {
  return {
    ...result,
    stream,
    expires: result.expires.toISOString(),
    chain: formatChainEnd(result.chain),
  };
}

/** An issued release as a person reads it, as pairs for a table; `migrations` says how many of what. */
export function issuePairs(
  result: Issued,
  migrations: string,
  paint: Paint,
): readonly (readonly [string, string])[] {
  return [
    [result.outcome === "dry-run" ? "would be" : "release", result.digest],
    ["outcome", outcomeInWords(result, paint)],
    ["version", `${result.version} (epoch ${result.epoch})`],
    ["for", `${result.environments.join(", ")}, until ${result.expires.toISOString()}`],
    ["signed by", result.signers.join("\n")],
    ["migrations", migrations],
    ["chain", formatChainEnd(result.chain)],
  ];
}

function outcomeInWords({ outcome }: Issued, paint: Paint): string {
  switch (outcome) {
    case "published":
      return paint.good("published");
    case "unchanged":
      return "unchanged: the newest release is just this";
    case "unsigned":
      return paint.warn("written, but not the newest yet: more signatures of trusted keys are needed");
    case "dry-run":
      return "not written: a dry run";
  }
}
