import type { Envelope } from "../release/envelope.ts";
import type { ReleaseRole, Root, RootRole } from "../release/root/root.ts";
import { onlyKeys, signersOf } from "../release/trust/signers.ts";
import { formatPairs } from "./output.ts";
import type { Paint } from "./output.ts";

/** A root as somebody looks at it who has to sign or to believe it. */
export interface RootReview {
  readonly root: Root;
  readonly envelopes: readonly Envelope[];
  /** undefined: it is not at hand, so nobody can say what changes */
  readonly previous: Root | undefined;
}

/** A root as programs read it. */
export function describeRoot({ root, envelopes, previous }: RootReview): Record<string, unknown> {
  const { org, version, expires } = root;
  return {
    org,
    version,
    expires: expires.toISOString(),
    root: { keys: root.signers.keys.map(({ id }) => id), threshold: root.signers.threshold },
    releases: root.releases.map(({ keys, identities, ...rule }) => ({
      ...rule,
      keys: [...keys, ...identities].map(({ id }) => id),
    })),
    timestamp:
      root.timestamp === null
        ? null
        : { keys: root.timestamp.keys.map(({ id }) => id), threshold: root.timestamp.threshold },
    streams: Object.fromEntries(root.streams),
    revoked: [...root.revoked],
    signatures: envelopes.length,
    signed: {
      own: countOf(envelopes, root.signers),
      previous: previous === undefined ? null : countOf(envelopes, previous.signers),
    },
    changes: previous === undefined ? null : changesBetween(previous, root),
  };
}

/** A root as a person reads it: what it says, what of it is new, and who has signed. */
export function formatRoot(review: RootReview, paint: Paint): string {
  return `${formatRootFacts(review, paint)}\n\n${formatRootSignatures(review, paint)}`;
}

/** All that a root says, line by line, with what is new and what is gone. */
export function formatRootFacts({ root, previous }: RootReview, paint: Paint): string {
  const before = previous === undefined ? undefined : new Set(factsOf(previous));
  const facts = factsOf(root).map((fact) =>
    before === undefined || before.has(fact) ? `  ${fact}` : paint.good(`+ ${fact}`),
  );
  const gone =
    previous === undefined
      ? []
      : changesBetween(previous, root).removed.map((fact) => paint.bad(`- ${fact}`));
  return [...facts, ...gone].join("\n");
}

/** Which root it is, and how many of those who have to sign it have done so. */
export function formatRootSignatures({ root, envelopes, previous }: RootReview, paint: Paint): string {
  return formatPairs([
    ["root", `${root.version} of ${root.org}`],
    [
      "signed",
      envelopes.length === 0 && previous === undefined
        ? "by nobody: only a root that runners pin needs no signature"
        : inWords(envelopes, root.signers, "its own keys", paint),
    ],
    [
      "",
      previous === undefined
        ? undefined
        : inWords(envelopes, previous.signers, `the keys of root ${previous.version}`, paint),
    ],
  ]);
}

/** Whether a root has all signatures that a runner will ask for. */
export function isComplete({ root, envelopes, previous }: RootReview): boolean {
  return [root, ...(previous === undefined ? [] : [previous])].every(({ signers }) => {
    const { counted, threshold } = countOf(envelopes, signers);
    return counted >= threshold;
  });
}

function changesBetween(
  previous: Root,
  root: Root,
): { readonly added: readonly string[]; readonly removed: readonly string[] } {
  const [before, after] = [factsOf(previous), factsOf(root)];
  return {
    added: after.filter((fact) => !before.includes(fact)),
    removed: before.filter((fact) => !after.includes(fact)),
  };
}

/** All that a root says, each thing as one line, so that two roots can be compared. */
function factsOf(root: Root): readonly string[] {
  const called = (id: string): string => (root.names.has(id) ? `${root.names.get(id) ?? ""} (${id})` : id);
  const ofKeys = (role: string, signers: readonly { readonly id: string }[]): readonly string[] =>
    signers.map(({ id }) => `${role}: ${called(id)}`);
  const ofRelease = (rule: ReleaseRole): readonly string[] => {
    const role = `releases of ${rule.streams.join(", ")} for ${rule.environments.join(", ")}`;
    return [
      `${role}: ${rule.threshold} must sign, for up to ${rule.maxValidityDays} days`,
      ...ofKeys(role, rule.keys),
      ...rule.identities.flatMap(({ id, trustDomain, issuer, san, oids }) => [
        `${role}: ${id}, ${san}, by ${issuer} (${trustDomain})`,
        ...[...oids].map(([oid, value]) => `${role}: ${id} with ${oid} = ${value}`),
      ]),
    ];
  };
  const { timestamp } = root;
  return [
    `expires ${root.expires.toISOString()}`,
    `next root: ${root.signers.threshold} must sign`,
    ...ofKeys("next root", root.signers.keys),
    ...root.releases.flatMap(ofRelease),
    ...(timestamp === null
      ? []
      : [`timestamps: ${timestamp.threshold} must sign`, ...ofKeys("timestamps", timestamp.keys)]),
    ...[...root.streams].map(
      ([stream, { epoch, minVersion }]) => `stream ${stream}: epoch ${epoch}, versions from ${minVersion}`,
    ),
    ...[...root.revoked].map((digest) => `revoked: ${digest}`),
  ];
}

function countOf(
  envelopes: readonly Envelope[],
  { keys, threshold }: RootRole,
): { readonly counted: number; readonly threshold: number } {
  return { counted: signersOf(envelopes, onlyKeys(keys)).length, threshold };
}

function inWords(envelopes: readonly Envelope[], role: RootRole, whose: string, paint: Paint): string {
  const { counted, threshold } = countOf(envelopes, role);
  const text = `${counted} of ${threshold} by ${whose}`;
  return counted >= threshold ? paint.good(text) : paint.warn(text);
}
