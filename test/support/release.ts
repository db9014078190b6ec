import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

import { generateKey, parsePrivateKey } from "../../src/release/key.ts";
import type { KeyKind, SigningKey } from "../../src/release/key.ts";
import { publishRelease } from "../../src/release/publish.ts";
import type { PublishOptions, PublishResult } from "../../src/release/publish.ts";
import { makeTrust } from "../../src/release/trust.ts";
import type { Trust } from "../../src/release/trust.ts";
import { openFolder } from "../../src/source/folder.ts";
import type { WritableSource } from "../../src/source/source.ts";

/** File names with their contents, as a folder of migrations holds them. */
export type Files = Readonly<Record<string, string | Uint8Array>>;

/** A signal that never aborts, for calls that a test does not cancel. */
export const never: AbortSignal = new AbortController().signal;

/** A key pair as PEM texts and ready to sign. */
export interface TestKey extends SigningKey {
  readonly privatePem: string;
  readonly publicPem: string;
  readonly id: string;
}

/** A fresh key pair, P-256 unless said otherwise. */
export function makeKey(kind: KeyKind = "ecdsa-p256"): TestKey {
  const { privatePem, publicPem, id } = generateKey(kind, undefined);
  return { ...parsePrivateKey(privatePem, undefined, "a test key"), privatePem, publicPem, id };
}

/** One key and the trust that asks for its signature. */
export function makeKeys(): { readonly key: TestKey; readonly trust: Trust } {
  const key = makeKey();
  return { key, trust: trustOf([key]) };
}

/** A trust in these keys; `rest` are further fields of a trust file. */
export function trustOf(keys: readonly SigningKey[], rest: object = {}): Trust {
  return makeTrust(
    { keys: keys.map(({ public: { id } }) => id), ...rest },
    keys.map((key) => key.public),
    "the test's trust",
  );
}

/** A folder of its own with these files in it; gone with `[Symbol.asyncDispose]`. */
export async function tempFolder(
  files: Files = {},
): Promise<{ readonly path: string; readonly source: WritableSource } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "lockkeeper-test-"));
  await Promise.all(Object.entries(files).map(([name, content]) => writeFile(join(path, name), content)));
  return {
    path,
    source: folderSource(path),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

/** A folder on disk as a source. */
export function folderSource(path: string): WritableSource {
  return openFolder({ folder: path, url: pathToFileURL(path).href }, { create: true });
}

/** Publishes these files as the next signed release of the stream `orders` (or another) under `destination`. */
export async function publishTo(
  destination: WritableSource,
  files: Files,
  options: Pick<PublishOptions, "keys"> & Partial<PublishOptions>,
): Promise<PublishResult> {
  await using folder = await tempFolder(files);
  return await publishRelease(
    {
      folder: folder.source,
      destination,
      stream: "orders",
      engine: "postgres",
      environments: ["default"],
      expiresInDays: 90,
      allowLate: false,
      now: new Date(),
      emit: () => {},
      ...options,
    },
    never,
  );
}
