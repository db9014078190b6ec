import { RunnerError } from "../../error.ts";
import { isSameWorkload, makeIdentity } from "../trust/identity.ts";
import type { Identity } from "../trust/identity.ts";
import { parsePublicKey } from "../trust/key.ts";
import type { PublicKey } from "../trust/key.ts";
import { releaseLimits } from "../limits.ts";
import { rootSchema } from "./root-text.ts";
import type { RootKeyText, RootText } from "./root-text.ts";
import { check } from "../schema.ts";
import { parseStrictJson } from "../strict-json.ts";
import { defaultMaxValidityDays } from "../trust/trust.ts";
import type { TimestampRule, TrustRule } from "../trust/trust.ts";

/** One version of an organisation's root: whom it trusts for what, and who may name the next version (trust.md 2.6). */
export interface Root {
  readonly org: string;
  readonly version: number;
  readonly expires: Date;
  /** who replaces this root, together with the next one's own keys */
  readonly signers: RootRole;
  readonly releases: readonly ReleaseRole[];
  readonly timestamp: TimestampRule | null;
  readonly streams: ReadonlyMap<string, StreamRule>;
  /** digests of releases that are refused whoever signed them */
  readonly revoked: ReadonlySet<string>;
  /** what people call keys, by id */
  readonly names: ReadonlyMap<string, string>;
}

/** The keys of the root role. No identity is among them: what decides about trust depends on no other service. */
export interface RootRole {
  readonly keys: readonly PublicKey[];
  readonly threshold: number;
}

/** Who signs releases of these streams for these environments. */
export interface ReleaseRole extends TrustRule {
  readonly streams: readonly string[];
  readonly environments: readonly string[];
  readonly keys: readonly PublicKey[];
  readonly identities: readonly Identity[];
}

/** What holds for every release of a stream. */
export interface StreamRule {
  readonly epoch: number;
  readonly minVersion: number;
}

/**
 * Bytes of a root document → what it says. Nothing of it is proven here: see `verifyNextRoot`.
 *
 * @throws RunnerError `TOO_LARGE`, `JSON_…`, `SCHEMA`; `ROOT_INVALID` — a key under another id than its own, an unknown key in a
 * role, a threshold out of reach, a (stream, environment) with two rules or a stream with none
 */
export function readRoot(bytes: Uint8Array, what = "the root"): Root {
  return makeRoot(parseStrictJson(bytes, what, releaseLimits.rootBytes), what);
}

/**
 * Bytes of a root document → the document, to make the next one of it.
 *
 * @throws RunnerError as {@link readRoot}
 */
export function readRootText(bytes: Uint8Array, what = "the root"): RootText {
  const value = parseStrictJson(bytes, what, releaseLimits.rootBytes);
  makeRoot(value, what);
  return check(rootSchema, value, what);
}

/**
 * A root from its parsed form, as a configuration may hold it.
 *
 * @throws RunnerError as {@link readRoot}
 */
export function makeRoot(value: unknown, what: string): Root {
  const text = check(rootSchema, value, what);
  const known = readSigners(text, what);
  const { root, release, timestamp } = text.roles;
  const streams = new Map(Object.entries(text.streams));
  const releases = release.map((rule) => ({
    ...rule,
    maxValidityDays: rule.maxValidityDays ?? defaultMaxValidityDays,
    ...pick(rule, known, "a release rule", what),
  }));
  assertOneRuleEach(releases, streams, what);
  return {
    org: text.org,
    version: text.version,
    expires: new Date(text.expires),
    signers: pickKeys(root, known, "the root role", what),
    releases,
    timestamp: timestamp === undefined ? null : pickKeys(timestamp, known, "the timestamp role", what),
    streams,
    revoked: new Set(text.revoked.releases),
    names: new Map(Object.entries(text.keys).flatMap(([id, { name }]) => (name ? [[id, name]] : []))),
  };
}

type RoleText = RootText["roles"]["root"];
type Known = ReadonlyMap<string, PublicKey | Identity>;

/** One signer, one id: else a threshold could count somebody twice. */
function readSigners({ keys }: RootText, what: string): Known {
  const known = new Map<string, PublicKey | Identity>();
  for (const [id, text] of Object.entries(keys)) {
    if (text.type !== "sigstore") {
      known.set(id, readKey(id, text, what));
      continue;
    }
    const { name: _, ...rest } = text;
    const identity = makeIdentity(id, rest);
    if (!id.startsWith("oidc:")) throw invalid(what, `names the identity "${id}" as if it were a key`);
    const twin = [...known.values()].find((other) => !isKey(other) && isSameWorkload(other, identity));
    if (twin !== undefined) throw invalid(what, `names one workload twice, as "${twin.id}" and "${id}"`);
    known.set(id, identity);
  }
  return known;
}

function readKey(id: string, { pem, type }: RootKeyText, what: string): PublicKey {
  let key: PublicKey;
  try {
    key = parsePublicKey(pem, `the key ${id}`);
  } catch (cause) {
    // to whoever deploys a runner these are faults of a configuration; here they are of a document in a bucket
    throw invalid(
      what,
      cause instanceof RunnerError ? `is refused: ${cause.message}` : "has a bad key",
      cause,
    );
  }
  if (key.id !== id) throw invalid(what, `names the key ${key.id} as ${id}`);
  if (key.kind !== type) throw invalid(what, `says that the key ${id} is ${type}, and it is ${key.kind}`);
  return key;
}

function pick(
  { keys, threshold }: RoleText,
  known: Known,
  role: string,
  what: string,
): { readonly keys: readonly PublicKey[]; readonly identities: readonly Identity[] } {
  const signers = keys.map((id) => {
    const signer = known.get(id);
    if (signer === undefined) throw invalid(what, `names ${id} in ${role}, and it is not among its keys`);
    return signer;
  });
  if (new Set(signers).size !== signers.length) throw invalid(what, `names a key twice in ${role}`);
  if (threshold > signers.length)
    throw invalid(what, `asks for ${threshold} of ${signers.length} keys in ${role}`);
  return {
    keys: signers.filter(isKey),
    identities: signers.filter((signer): signer is Identity => !isKey(signer)),
  };
}

function pickKeys(role: RoleText, known: Known, title: string, what: string): RootRole {
  const { keys, identities } = pick(role, known, title, what);
  if (identities.length > 0) throw invalid(what, `names an identity in ${title}, which takes keys only`);
  return { keys, threshold: role.threshold };
}

function isKey(signer: PublicKey | Identity): signer is PublicKey {
  return "kind" in signer;
}

function assertOneRuleEach(
  releases: readonly ReleaseRole[],
  streams: ReadonlyMap<string, StreamRule>,
  what: string,
): void {
  const seen = new Set<string>();
  const ruled = new Set<string>();
  for (const rule of releases) {
    for (const stream of rule.streams) {
      if (!streams.has(stream))
        throw invalid(what, `has a rule for "${stream}", which is not in its streams`);
      ruled.add(stream);
      for (const environment of rule.environments) {
        // no name holds a space
        const pair = `${stream} ${environment}`;
        if (seen.has(pair)) throw invalid(what, `has two rules for "${stream}" in "${environment}"`);
        seen.add(pair);
      }
    }
  }
  const unruled = [...streams.keys()].find((stream) => !ruled.has(stream));
  if (unruled !== undefined) throw invalid(what, `has no rule for its stream "${unruled}"`);
}

function invalid(what: string, problem: string, cause?: unknown): RunnerError {
  return new RunnerError("ROOT_INVALID", `${what} ${problem}`, {
    hint: "correct the document, and let the root keys sign it again",
    cause,
  });
}
