import { RunnerError } from "../../error.ts";
import type { PublicKey } from "../trust/key.ts";
import { makeRoot, readRoot } from "./root.ts";
import { rootSchemaName } from "./root-text.ts";
import type { RootText } from "./root-text.ts";
import { formatTime } from "../schema.ts";

/** A public key and what people call it. */
export interface NamedKey {
  readonly key: PublicKey;
  readonly name: string | undefined;
}

/** What the first root of an organisation says. */
export interface FirstRoot {
  readonly org: string;
  /** default 1; above all that databases know where it takes the place of a root that was stolen */
  readonly version?: number | undefined;
  readonly streams: readonly string[];
  readonly environments: readonly string[];
  readonly rootKeys: readonly NamedKey[];
  /** default: more than half of the root keys */
  readonly rootThreshold?: number | undefined;
  readonly releaseKeys: readonly NamedKey[];
  /** default 1 */
  readonly releaseThreshold?: number | undefined;
  readonly timestampKeys: readonly NamedKey[];
  readonly expires: Date;
}

/** What the next root says otherwise; all else stays. */
export interface RootChanges {
  readonly addRootKeys: readonly NamedKey[];
  /** to every release rule */
  readonly addReleaseKeys: readonly NamedKey[];
  readonly addTimestampKeys: readonly NamedKey[];
  /** ids of keys and identities that no role names any more */
  readonly drop: readonly string[];
  readonly rootThreshold?: number | undefined;
  /** of every release rule */
  readonly releaseThreshold?: number | undefined;
  /** new epochs by stream */
  readonly epochs: ReadonlyMap<string, number>;
  /** new lowest versions by stream */
  readonly minVersions: ReadonlyMap<string, number>;
  /** digests of releases */
  readonly revoke: readonly string[];
  readonly expires: Date;
}

/**
 * The document of a first root, to be pinned by its runners: indented, for people to read and to edit.
 *
 * @throws RunnerError `ROOT_INVALID`, `SCHEMA` — nobody could work with such a root
 */
export function draftFirstRoot(first: FirstRoot): Buffer {
  const { org, streams, environments, rootKeys, releaseKeys, timestampKeys } = first;
  const keys = [...rootKeys, ...releaseKeys, ...timestampKeys];
  const timestamp = { keys: idsOf(timestampKeys), threshold: 1 };
  return writeRoot({
    schema: rootSchemaName,
    org,
    version: first.version ?? 1,
    expires: formatTime(first.expires),
    keys: Object.fromEntries(keys.map(writeKey)),
    roles: {
      root: { keys: idsOf(rootKeys), threshold: first.rootThreshold ?? mostOf(rootKeys.length) },
      release: [
        {
          streams: [...streams],
          environments: [...environments],
          keys: idsOf(releaseKeys),
          threshold: first.releaseThreshold ?? 1,
        },
      ],
      ...(timestampKeys.length > 0 && { timestamp }),
    },
    streams: Object.fromEntries(streams.map((stream) => [stream, { epoch: 1, minVersion: 1 }])),
    revoked: { releases: [] },
  });
}

/**
 * The document of the root after `document`, with these changes.
 *
 * @throws RunnerError `USAGE` — a change to what is not there; the codes of {@link readRoot}
 */
export function draftNextRoot(document: RootText, changes: RootChanges): Buffer {
  const { addRootKeys, addReleaseKeys, addTimestampKeys, revoke } = changes;
  assertThere(document, changes);
  const dropped = new Set(changes.drop);
  const added = [...addRootKeys, ...addReleaseKeys, ...addTimestampKeys];
  const known = Object.entries(document.keys).filter(([id]) => !dropped.has(id));
  const keysOf = (
    role: { readonly keys: readonly string[] } | undefined,
    more: readonly NamedKey[],
  ): string[] => [...new Set([...(role?.keys ?? []).filter((id) => !dropped.has(id)), ...idsOf(more)])];
  const { root, release, timestamp } = document.roles;
  const vouchers = keysOf(timestamp, addTimestampKeys);
  const streams = Object.entries(document.streams).map(([stream, { epoch, minVersion }]) => {
    // versions begin again with an epoch
    const next = changes.epochs.get(stream);
    const lowest = changes.minVersions.get(stream) ?? (next === undefined ? minVersion : 1);
    return [stream, { epoch: next ?? epoch, minVersion: lowest }] as const;
  });
  return writeRoot({
    ...document,
    version: document.version + 1,
    expires: formatTime(changes.expires),
    keys: Object.fromEntries([...known, ...added.map(writeKey)]),
    roles: {
      root: { keys: keysOf(root, addRootKeys), threshold: changes.rootThreshold ?? root.threshold },
      release: release.map((rule) => ({
        ...rule,
        keys: keysOf(rule, addReleaseKeys),
        threshold: changes.releaseThreshold ?? rule.threshold,
      })),
      ...(vouchers.length > 0 && { timestamp: { keys: vouchers, threshold: timestamp?.threshold ?? 1 } }),
    },
    streams: Object.fromEntries(streams),
    revoked: { releases: [...new Set([...document.revoked.releases, ...revoke])] },
  });
}

/** As a reader will judge it, so that nobody signs what nobody takes. */
function writeRoot(text: RootText): Buffer {
  makeRoot(text, "the new root");
  const bytes = Buffer.from(`${JSON.stringify(text, null, 2)}\n`);
  readRoot(bytes, "the new root");
  return bytes;
}

function assertThere({ keys, streams }: RootText, { drop, epochs, minVersions }: RootChanges): void {
  const missing = [
    ...drop.filter((id) => !Object.hasOwn(keys, id)),
    ...[...epochs.keys(), ...minVersions.keys()].filter((stream) => !Object.hasOwn(streams, stream)),
  ];
  const [first] = missing;
  if (first === undefined) return;
  throw new RunnerError("USAGE", `the root names no "${first}"`, {
    hint: "see what it names with lockkeeper root show",
  });
}

function writeKey({ key, name }: NamedKey): readonly [string, RootText["keys"][string]] {
  const pem = String(key.key.export({ type: "spki", format: "pem" }));
  return [key.id, { type: key.kind, ...(name !== undefined && { name }), pem }];
}

function idsOf(keys: readonly NamedKey[]): string[] {
  return [...new Set(keys.map(({ key }) => key.id))];
}

/** One lost key must not end an organisation's root, and one stolen must not be enough: more than half. */
function mostOf(keys: number): number {
  return Math.floor(keys / 2) + 1;
}
