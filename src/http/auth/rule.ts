/** What a policy can allow, each a right of its own. */
export const actions = [
  "status",
  "plan",
  "verify",
  "apply",
  "rollback",
  "cancel",
  "retry",
  "unlock",
  "repair",
  "adopt",
  "baseline",
  // to say that a bucket has changed: the target converges to what it offers, and whoever says so chooses nothing
  "wake",
] as const;

/** One right on a target. */
export type Action = (typeof actions)[number];

/** A caller that `from` describes may do `actions` on `targets`. */
export interface Rule {
  readonly id: string;
  readonly from: RuleCaller;
  /** target names; `*` is all of them */
  readonly targets: readonly string[];
  readonly actions: readonly Action[];
  /** a request that changes something has to name the release's digest */
  readonly isDigestRequired: boolean;
  /** requests one caller may make of one target in an hour, counted by each process for itself; null: no limit */
  readonly perHour: number | null;
}

/** Whom a rule is for; names are those of the same policy. */
export type RuleCaller =
  /** whose claims are all as `match` says */
  | { readonly kind: "issuer"; readonly issuer: string; readonly match: readonly ClaimMatch[] }
  /** whoever has the webhook's secret, or may publish to its topic */
  | { readonly kind: "hook"; readonly hook: string };

/** One claim and what it has to be. */
export interface ClaimMatch {
  /** name, or JSON Pointer where it starts with `/` */
  readonly claim: string;
  readonly anyOf: readonly ClaimValue[];
}

/** What a claim can be compared with; arrays and objects never match. */
export type ClaimValue = string | number | boolean;
