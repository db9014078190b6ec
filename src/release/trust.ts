import * as v from "valibot";

import { RunnerError } from "../error.ts";
import type { PublicKey } from "./key.ts";
import type { KnownSigners } from "./signers.ts";
import { releaseLimits } from "./limits.ts";
import { check, count, digestText } from "./schema.ts";

/**
 * Whose signatures count for the releases of a target, from the runner's own deployment and never from the bucket.
 *
 * trust.md 2.6, static keys: to rotate, deploy old and new keys, publish, deploy without the old.
 */
export interface Trust extends KnownSigners {
  readonly kind: "fixed";
  /** what holds where `release` says nothing of an environment */
  readonly rule: TrustRule;
  /** by environment */
  readonly release: ReadonlyMap<string, TrustRule>;
  /** releases with a lower version are refused; for a key that was abused */
  readonly minVersion: number;
  /** digests of releases that are refused whoever signed them */
  readonly revoked: ReadonlySet<string>;
  /** the only epoch whose releases are taken; null: any, so that a stolen key could reach for the highest */
  readonly epoch: number | null;
  /** who has to vouch that a release is still the newest; null: nobody, its expiry is enough */
  readonly timestamp: TimestampRule | null;
}

/** Who vouches for freshness, and for nothing else (trust.md 2.6, the `timestamp` role). */
export interface TimestampRule {
  readonly keys: readonly PublicKey[];
  readonly threshold: number;
}

/** What releases for an environment need. */
export interface TrustRule {
  /** distinct keys that must have signed */
  readonly threshold: number;
  /** longest time from issue to expiry */
  readonly maxValidityDays: number;
}

/** A year and a month: a release that lives longer was probably meant to live for ever. */
const defaultMaxValidityDays = 400;

const ruleEntries = {
  threshold: v.exactOptional(count(1, releaseLimits.keys)),
  maxValidityDays: v.exactOptional(count(1, 36_500)),
};

/** Shape of a trust in the configuration and in a trust file. Each of `keys` is PEM text or the path of a public key file. */
export const trustSchema = v.strictObject({
  ...ruleEntries,
  keys: v.pipe(
    v.array(v.string()),
    v.minLength(1, "at least one key"),
    v.maxLength(releaseLimits.keys, `at most ${releaseLimits.keys} keys`),
  ),
  release: v.exactOptional(v.record(v.string(), v.strictObject(ruleEntries))),
  minVersion: v.exactOptional(count(1)),
  revoked: v.exactOptional(v.strictObject({ releases: v.array(digestText) })),
});

/** A trust as it is written: {@link trustSchema}. */
export type TrustText = v.InferOutput<typeof trustSchema>;

/**
 * A trust from its text form and the keys that it names, in any order.
 *
 * @throws RunnerError `TRUST_INVALID` — another form, a key twice (also in two encodings), or a threshold above the number of keys
 */
export function makeTrust(text: unknown, keys: readonly PublicKey[], what: string): Trust {
  const {
    threshold = 1,
    maxValidityDays = defaultMaxValidityDays,
    release = {},
    minVersion = 1,
    revoked,
  } = readTrustText(text, what);
  if (new Set(keys.map(({ id }) => id)).size !== keys.length) {
    throw new RunnerError("TRUST_INVALID", `${what} names one key twice`, {
      hint: "a threshold counts distinct keys",
    });
  }
  const rule = { threshold, maxValidityDays };
  const rules = Object.entries(release).map(
    ([environment, own]) => [environment, { ...rule, ...own }] as const,
  );
  for (const [environment, { threshold: wanted }] of [["default", rule] as const, ...rules]) {
    if (wanted <= keys.length) continue;
    throw new RunnerError("TRUST_INVALID", `${what} asks for ${wanted} of ${keys.length} keys`, {
      hint: "name more keys or lower the threshold",
      fields: { environment, threshold: wanted, keys: keys.length },
    });
  }
  return {
    kind: "fixed",
    keys,
    identities: [],
    keyless: null,
    rule,
    release: new Map(rules),
    minVersion,
    revoked: new Set(revoked?.releases),
    epoch: null,
    timestamp: null,
  };
}

/**
 * A trust's text form, checked.
 *
 * @throws RunnerError `TRUST_INVALID` — with the field
 */
export function readTrustText(value: unknown, what: string): TrustText {
  return check(trustSchema, value, what, "TRUST_INVALID");
}

/** What holds for one environment. */
export function ruleFor(trust: Trust, environment: string): TrustRule {
  return trust.release.get(environment) ?? trust.rule;
}

/** Several trusts as one: the keys of all, and the strictest of everything else. */
export function joinTrusts(trusts: readonly [Trust, ...Trust[]]): Trust {
  return trusts.reduce(joinTwo);
}

function joinTwo(left: Trust, right: Trust): Trust {
  return {
    ...left,
    keys: [...new Map([...left.keys, ...right.keys].map((key) => [key.id, key])).values()],
    rule: stricter(left.rule, right.rule),
    release: new Map(
      [...left.release.keys(), ...right.release.keys()].map((environment) => [
        environment,
        stricter(ruleFor(left, environment), ruleFor(right, environment)),
      ]),
    ),
    minVersion: Math.max(left.minVersion, right.minVersion),
    revoked: new Set([...left.revoked, ...right.revoked]),
  };
}

function stricter(left: TrustRule, right: TrustRule): TrustRule {
  return {
    threshold: Math.max(left.threshold, right.threshold),
    maxValidityDays: Math.min(left.maxValidityDays, right.maxValidityDays),
  };
}
