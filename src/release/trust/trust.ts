import * as v from "valibot";

import { RunnerError } from "../../error.ts";
import type { Envelope } from "../envelope.ts";
import { identityId, identitySchema, isSameWorkload, makeIdentity } from "./identity.ts";
import type { Identity, KeylessVerifier } from "./identity.ts";
import type { PublicKey } from "./key.ts";
import type { KnownSigners } from "./signers.ts";
import { releaseLimits } from "../limits.ts";
import { check, count, digestText, mapOf, nameText } from "../schema.ts";

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
  /** whom earlier versions of a root trusted with the stream: their signature is good for nothing but being continued */
  readonly earlier?: KnownSigners;
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
export const defaultMaxValidityDays = 400;

const ruleEntries = {
  threshold: v.exactOptional(count(1, releaseLimits.keys)),
  maxValidityDays: v.exactOptional(count(1, 36_500)),
};

const keyList = v.pipe(
  v.array(v.string()),
  v.maxLength(releaseLimits.keys, `at most ${releaseLimits.keys} keys`),
);

/** Fields of a trust that pins keys and identities. Each of `keys` is PEM text or the path of a public key file. */
export const fixedTrustEntries = {
  ...ruleEntries,
  keys: v.exactOptional(keyList),
  identities: v.exactOptional(mapOf(identityId, identitySchema)),
  /** each is the path of a `trusted_root.json` */
  trustDomains: v.exactOptional(mapOf(nameText, v.string())),
  release: v.exactOptional(mapOf(nameText, v.strictObject(ruleEntries))),
  minVersion: v.exactOptional(count(1)),
  epoch: v.exactOptional(count(1)),
  revoked: v.exactOptional(v.strictObject({ releases: v.array(digestText) })),
  timestamp: v.exactOptional(
    v.strictObject({
      keys: v.pipe(keyList, v.minLength(1, "at least one key")),
      threshold: v.exactOptional(count(1, releaseLimits.keys)),
    }),
  ),
};

/** Shape of a trust that pins keys and identities. */
export const fixedTrustSchema = v.pipe(
  v.strictObject(fixedTrustEntries),
  v.check((text) => namesSigner(text), "a trust with at least one key or identity"),
);

/** Whether a trust's text form names anybody at all. */
export function namesSigner(text: {
  readonly keys?: readonly string[];
  readonly identities?: Readonly<Record<string, unknown>>;
}): boolean {
  return (text.keys ?? []).length + Object.keys(text.identities ?? {}).length > 0;
}

/** A trust that pins keys and identities, as it is written: {@link fixedTrustSchema}. */
export type FixedTrustText = v.InferOutput<typeof fixedTrustSchema>;

/** What a trust's text form only names. */
export interface TrustParts {
  readonly timestampKeys?: readonly PublicKey[];
  /** for its identities */
  readonly keyless?: KeylessVerifier | null;
}

/**
 * A trust from its text form and the keys that it names, in any order.
 *
 * @throws RunnerError `TRUST_INVALID` — another form, one signer twice (a key in two encodings, a workload under two names),
 * or a threshold above the number of signers
 */
export function makeTrust(
  text: unknown,
  keys: readonly PublicKey[],
  what: string,
  { timestampKeys = [], keyless = null }: TrustParts = {},
): Trust {
  const asked = check(fixedTrustSchema, text, what, "TRUST_INVALID");
  const { threshold = 1, maxValidityDays = defaultMaxValidityDays, release = {}, timestamp } = asked;
  const identities = Object.entries(asked.identities ?? {}).map(([id, one]) => makeIdentity(id, one));
  assertDistinct(keys, identities, what);
  assertDistinct(timestampKeys, [], `the timestamp role of ${what}`);
  const rule = { threshold, maxValidityDays };
  const rules = Object.entries(release).map(
    ([environment, own]) => [environment, { ...rule, ...own }] as const,
  );
  const signers = keys.length + identities.length;
  for (const [environment, { threshold: wanted }] of [["default", rule] as const, ...rules])
    assertReachable(wanted, signers, what, { environment });
  if (timestamp !== undefined)
    assertReachable(timestamp.threshold ?? 1, timestampKeys.length, `the timestamp role of ${what}`);
  return {
    kind: "fixed",
    keys,
    identities,
    keyless: identities.length === 0 ? null : keyless,
    rule,
    release: new Map(rules),
    minVersion: asked.minVersion ?? 1,
    revoked: new Set(asked.revoked?.releases),
    epoch: asked.epoch ?? null,
    timestamp: timestamp === undefined ? null : { keys: timestampKeys, threshold: timestamp.threshold ?? 1 },
  };
}

function assertDistinct(keys: readonly PublicKey[], identities: readonly Identity[], what: string): void {
  const hint = "a threshold counts distinct signers";
  if (new Set(keys.map(({ id }) => id)).size !== keys.length)
    throw new RunnerError("TRUST_INVALID", `${what} names one key twice`, { hint });
  for (const [index, one] of identities.entries()) {
    const others = identities.slice(index + 1);
    if (others.some(({ id }) => id === one.id))
      throw new RunnerError("TRUST_INVALID", `${what} calls two workloads "${one.id}"`, {
        hint: "give each a name of its own: who signed is told by it",
      });
    const twin = others.find((other) => isSameWorkload(one, other));
    if (twin === undefined) continue;
    throw new RunnerError(
      "TRUST_INVALID",
      `${what} names one workload twice, as "${one.id}" and "${twin.id}"`,
      {
        hint,
      },
    );
  }
}

function assertReachable(
  wanted: number,
  signers: number,
  what: string,
  fields: Readonly<Record<string, string>> = {},
): void {
  if (wanted <= signers) return;
  throw new RunnerError("TRUST_INVALID", `${what} asks for ${wanted} of ${signers} keys`, {
    hint: "name more keys or lower the threshold",
    fields: { ...fields, threshold: wanted, keys: signers },
  });
}

/** What holds for one environment. */
export function ruleFor(trust: Trust, environment: string): TrustRule {
  return trust.release.get(environment) ?? trust.rule;
}

/**
 * Several trusts as one: the signers of all, and the strictest of everything else.
 *
 * @throws RunnerError `TRUST_INVALID` — they contradict each other: two epochs, two timestamp roles, one name for two workloads
 */
export function joinTrusts(trusts: readonly [Trust, ...Trust[]]): Trust {
  return trusts.reduce(joinTwo);
}

function joinTwo(left: Trust, right: Trust): Trust {
  const identities = [...left.identities, ...right.identities];
  assertDistinct([], identities, "the trust of all files together");
  return {
    kind: "fixed",
    keys: [...new Map([...left.keys, ...right.keys].map((key) => [key.id, key])).values()],
    identities,
    keyless: joinKeyless(left, right),
    rule: stricter(left.rule, right.rule),
    release: new Map(
      [...left.release.keys(), ...right.release.keys()].map((environment) => [
        environment,
        stricter(ruleFor(left, environment), ruleFor(right, environment)),
      ]),
    ),
    minVersion: Math.max(left.minVersion, right.minVersion),
    revoked: new Set([...left.revoked, ...right.revoked]),
    epoch: onlyOne(left.epoch, right.epoch, "epoch"),
    timestamp: onlyOne(left.timestamp, right.timestamp, "timestamp role"),
  };
}

/** Each judges its own: what a trust domain is called is a matter of one file. */
function joinKeyless(left: Trust, right: Trust): KeylessVerifier | null {
  const [first, second] = [left.keyless, right.keyless];
  if (first === null || second === null) return first ?? second;
  const ofLeft = (asked: readonly Identity[]) => asked.filter((one) => left.identities.includes(one));
  const ofRight = (asked: readonly Identity[]) => asked.filter((one) => right.identities.includes(one));
  return {
    signerOf: (envelope: Envelope, asked: readonly Identity[]) =>
      first.signerOf(envelope, ofLeft(asked)) ?? second.signerOf(envelope, ofRight(asked)),
    whyNot(envelope: Envelope, asked: readonly Identity[]) {
      const why = first.whyNot(envelope, ofLeft(asked));
      return why === undefined ? undefined : second.whyNot(envelope, ofRight(asked));
    },
  };
}

function onlyOne<T extends object | number>(left: T | null, right: T | null, name: string): T | null {
  if (left === null || right === null || left === right) return left ?? right;
  throw new RunnerError(
    "TRUST_INVALID",
    `two of the trusts name ${name === "epoch" ? "an" : "a"} ${name}, not the same`,
    {
      hint: "name one of them with --trust",
    },
  );
}

function stricter(left: TrustRule, right: TrustRule): TrustRule {
  return {
    threshold: Math.max(left.threshold, right.threshold),
    maxValidityDays: Math.min(left.maxValidityDays, right.maxValidityDays),
  };
}
