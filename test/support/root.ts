import { layout } from "../../src/release/layout.ts";
import { makeRoot } from "../../src/release/root/root.ts";
import type { Root } from "../../src/release/root/root.ts";
import type { RootText } from "../../src/release/root/root-text.ts";
import { writeRootStatement } from "../../src/release/root/root-statement.ts";
import { managedTrust } from "../../src/release/root/root-trust.ts";
import type { PinnedRoot } from "../../src/release/root/root-trust.ts";
import type { RootBytes } from "../../src/release/root/root-walk.ts";
import type { ManagedTrust } from "../../src/release/trust/anchor.ts";
import type { WritableSource } from "../../src/source/source.ts";
import { overwrite, signedLine, type TestKey } from "./release.ts";

/** What of a root a test cares about; all else is as in {@link rootText}. */
export interface RootWish {
  readonly version?: number;
  readonly rootKeys: readonly TestKey[];
  readonly rootThreshold?: number;
  readonly releaseKeys: readonly TestKey[];
  readonly releaseThreshold?: number;
  readonly timestampKeys?: readonly TestKey[];
  readonly expires?: string;
  readonly epoch?: number;
  readonly minVersion?: number;
  readonly revoked?: readonly string[];
  readonly org?: string;
}

/** A root of `acme` for the stream `orders` in the environment `default`. */
export function rootText(wish: RootWish): RootText {
  const { rootKeys, releaseKeys, timestampKeys = [] } = wish;
  const keys = [...rootKeys, ...releaseKeys, ...timestampKeys];
  const idsOf = (some: readonly TestKey[]): string[] => some.map(({ id }) => id);
  return {
    schema: "urn:lockkeeper:root:v1",
    org: wish.org ?? "acme",
    version: wish.version ?? 1,
    expires: wish.expires ?? "2100-01-01T00:00:00Z",
    keys: Object.fromEntries(keys.map((key) => [key.id, { type: key.public.kind, pem: key.publicPem }])),
    roles: {
      root: { keys: idsOf(rootKeys), threshold: wish.rootThreshold ?? rootKeys.length },
      release: [
        {
          streams: ["orders"],
          environments: ["default"],
          keys: idsOf(releaseKeys),
          threshold: wish.releaseThreshold ?? 1,
        },
      ],
      ...(timestampKeys.length > 0 && { timestamp: { keys: idsOf(timestampKeys), threshold: 1 } }),
    },
    streams: { orders: { epoch: wish.epoch ?? 1, minVersion: wish.minVersion ?? 1 } },
    revoked: { releases: [...(wish.revoked ?? [])] },
  };
}

/** A root document as a file, signed by these keys, whoever they are. */
export function signedRoot(
  text: RootText | Buffer,
  keys: readonly TestKey[],
  said: { readonly org?: string; readonly version?: number } = {},
): RootBytes {
  const document = Buffer.isBuffer(text) ? text : Buffer.from(JSON.stringify(text));
  const { org, version } = Buffer.isBuffer(text) ? { org: "acme", version: 2 } : text;
  const payload = writeRootStatement({ org: said.org ?? org, version: said.version ?? version }, document);
  return { document, bundles: linesOf(keys.map((key) => signedLine(payload, key))) };
}

/** Lines as a file has them. */
export function linesOf(lines: readonly string[]): Buffer {
  return Buffer.from(lines.map((line) => `${line}\n`).join(""));
}

/** Puts a root where runners look for this version: what anybody with write access to the bucket can do. */
export async function plantRoot(
  destination: WritableSource,
  version: number,
  { document, bundles }: RootBytes,
): Promise<void> {
  await overwrite(destination, layout.rootBundles(version), bundles);
  await overwrite(destination, layout.root(version), document);
}

/** The first root, as a deployment pins it. */
export function pinned(wish: RootWish): Root {
  return makeRoot(rootText(wish), "the pinned root");
}

/** Trust in a first root. */
export function rootTrust(wish: RootWish, rest: Partial<PinnedRoot> = {}): ManagedTrust {
  return managedTrust({ root: pinned(wish), minRootVersion: 1, trustDomains: new Map(), ...rest });
}
