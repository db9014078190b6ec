import { noKnownRoots, resolveTrust } from "./anchor.ts";
import type { TrustAnchor, TrustQuestion } from "./anchor.ts";
import { RunnerError } from "../../error.ts";
import type { Envelope } from "../envelope.ts";
import type { PublicKey } from "./key.ts";
import { signersOf } from "./signers.ts";
import type { KnownSigners } from "./signers.ts";
import { ruleFor } from "./trust.ts";
import type { Trust } from "./trust.ts";

/** Whom the runners of each environment trust. */
export type EnvironmentTrusts = ReadonlyMap<string, Trust>;

/**
 * Trust as of now for each of several environments: one release can be for all of them, and a root may say another thing of each.
 * For whoever makes or looks at releases: no database is asked which roots it knows.
 *
 * @throws RunnerError as `resolveTrust`
 */
export async function resolveTrusts(
  anchor: TrustAnchor,
  question: Omit<TrustQuestion, "environment" | "known">,
  environments: readonly string[],
  signal: AbortSignal,
): Promise<EnvironmentTrusts> {
  const trusts = new Map<string, Trust>();
  for (const environment of environments) {
    const { trust } = await resolveTrust(anchor, { ...question, environment, known: noKnownRoots }, signal);
    trusts.set(environment, trust);
  }
  return trusts;
}

/** Everybody whose signature counts anywhere or did under an earlier root, and these keys. */
export function knownSigners(trusts: EnvironmentTrusts, own: readonly PublicKey[]): KnownSigners {
  const all = [...trusts.values()].flatMap((trust) => [trust, ...(trust.earlier ? [trust.earlier] : [])]);
  return {
    keys: distinct([...own, ...all.flatMap(({ keys }) => keys)]),
    identities: distinct(all.flatMap(({ identities }) => identities)),
    keyless: all.find(({ keyless }) => keyless !== null)?.keyless ?? null,
  };
}

/** Whether these signatures suffice in every environment that is asked for. */
export function isMet(envelopes: readonly Envelope[], trusts: EnvironmentTrusts): boolean {
  return [...trusts].every(
    ([environment, trust]) => signersOf(envelopes, trust).length >= ruleFor(trust, environment).threshold,
  );
}

/**
 * Refuses a validity that the runners of an environment would refuse.
 *
 * @throws RunnerError `VALIDITY`
 */
export function assertValidity(
  days: number,
  environments: readonly string[],
  trusts: EnvironmentTrusts,
): void {
  for (const environment of environments) {
    const trust = trusts.get(environment);
    const most = trust === undefined ? Infinity : ruleFor(trust, environment).maxValidityDays;
    if (days > 0 && days <= most) continue;
    throw new RunnerError(
      "VALIDITY",
      `a release for "${environment}" may be valid for up to ${most} days, not ${days}`,
      {
        hint: "choose another --expires",
        fields: { environment, days },
      },
    );
  }
}

function distinct<T extends { readonly id: string }>(all: readonly T[]): readonly T[] {
  return [...new Map(all.map((one) => [one.id, one])).values()];
}
