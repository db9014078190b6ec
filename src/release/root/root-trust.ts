import { RunnerError } from "../../error.ts";
import type { ManagedTrust, TrustQuestion } from "../trust/anchor.ts";
import type { Identity, KeylessVerifier } from "../trust/identity.ts";
import type { ReleaseRole, Root } from "./root.ts";
import { assertCurrent, walkRoots } from "./root-walk.ts";
import type { KnownSigners } from "../trust/signers.ts";
import type { Trust } from "../trust/trust.ts";

/** What a deployment pins in place of release keys. */
export interface PinnedRoot {
  readonly root: Root;
  /** a lower version is refused: the answer to a bucket that withholds a newer one; 1 demands nothing */
  readonly minRootVersion: number;
  /** the parsed `trusted_root.json` of each Sigstore instance, by the name that identities call it */
  readonly trustDomains: ReadonlyMap<string, unknown>;
}

/** Trust by a root that is pinned, and by those that followed it under its own rule. */
export function managedTrust(pinned: PinnedRoot): ManagedTrust {
  const keyless = loadOnce(pinned.trustDomains);
  return {
    kind: "managed",
    async resolve(question, signal) {
      const { known, now } = question;
      const { roots, newest, files } = await walkRoots(pinned.root, question, signal);
      assertCurrent(newest, { now, known: known.version, minRootVersion: pinned.minRootVersion });
      const trust = await trustOf(newest, question, pinned, keyless);
      const earlier = await everTrusted(roots, question.stream, pinned, keyless);
      return { trust: { ...trust, earlier }, root: { version: newest.version, files } };
    },
  };
}

async function trustOf(
  root: Root,
  { stream, environment }: TrustQuestion,
  { trustDomains }: PinnedRoot,
  keyless: () => Promise<KeylessVerifier>,
): Promise<Trust> {
  const rule = root.releases.find((one) => matches(one, stream) && one.environments.includes(environment));
  const streamRule = root.streams.get(stream);
  if (rule === undefined || streamRule === undefined) {
    throw new RunnerError(
      "TRUST_INVALID",
      `root ${root.version} trusts nobody with releases of "${stream}" for "${environment}"`,
      {
        hint: "check stream and environment, or add a release rule to the next root",
        fields: { stream, environment, version: root.version },
      },
    );
  }
  const unknown = rule.identities.find((one) => !trustDomains.has(one.trustDomain));
  if (unknown !== undefined) {
    throw new RunnerError(
      "TRUST_INVALID",
      `root ${root.version} trusts "${unknown.id}" by way of "${unknown.trustDomain}", which is not known here`,
      {
        hint: "name its trusted_root.json under trustDomains of the trust",
        fields: { identity: unknown.id, trustDomain: unknown.trustDomain, version: root.version },
      },
    );
  }
  const { keys, identities, threshold, maxValidityDays } = rule;
  return {
    kind: "fixed",
    keys,
    identities,
    keyless: identities.length === 0 ? null : await keyless(),
    rule: { threshold, maxValidityDays },
    release: new Map(),
    minVersion: streamRule.minVersion,
    revoked: root.revoked,
    epoch: streamRule.epoch,
    timestamp: root.timestamp,
  };
}

/** Everybody that one of the roots trusted with the stream. An identity that cannot be judged here is left out: it would only help to continue. */
async function everTrusted(
  roots: readonly Root[],
  stream: string,
  { trustDomains }: PinnedRoot,
  keyless: () => Promise<KeylessVerifier>,
): Promise<KnownSigners> {
  const isKnown = ({ trustDomain }: Identity): boolean => trustDomains.has(trustDomain);
  const rules = roots.flatMap(({ releases }) => releases.filter((rule) => matches(rule, stream)));
  const identities = rules.flatMap((rule) => rule.identities).filter(isKnown);
  return {
    keys: rules.flatMap(({ keys }) => keys),
    identities,
    keyless: identities.length === 0 ? null : await keyless(),
  };
}

function matches({ streams }: ReleaseRole, stream: string): boolean {
  return streams.includes(stream);
}

/** Sigstore's library is loaded when the first root that trusts an identity is in use, and once. */
function loadOnce(trustDomains: ReadonlyMap<string, unknown>): () => Promise<KeylessVerifier> {
  let loading: Promise<KeylessVerifier> | undefined;
  return () => {
    loading ??= import("../trust/keyless.ts").then(({ loadKeyless }) => loadKeyless(trustDomains));
    return loading;
  };
}
