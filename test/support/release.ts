import { sign } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

import { sha256Hex } from "../../src/migration/checksum.ts";
import type { Migration } from "../../src/migration/migration.ts";
import { emptyChain, nextChain } from "../../src/release/chain.ts";
import { payloadType, preAuthEncoding, writeEnvelope } from "../../src/release/envelope.ts";
import { writeHead } from "../../src/release/head.ts";
import { generateKey, parsePrivateKey } from "../../src/release/trust/key.ts";
import type { KeyKind, SigningKey } from "../../src/release/trust/key.ts";
import { layout } from "../../src/release/layout.ts";
import { writeManifest } from "../../src/release/manifest.ts";
import type { Manifest } from "../../src/release/manifest.ts";
import { publishRelease } from "../../src/release/publish/publish.ts";
import type { PublishOptions, PublishResult } from "../../src/release/publish/publish.ts";
import { writeStatement } from "../../src/release/statement.ts";
import type { ReleaseStatement } from "../../src/release/statement.ts";
import { readTrustFiles } from "../../src/release/trust/trust-file.ts";
import { makeTrust } from "../../src/release/trust/trust.ts";
import type { Trust } from "../../src/release/trust/trust.ts";
import { openFolder } from "../../src/source/folder.ts";
import type { Source, WritableSource } from "../../src/source/source.ts";

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

/** A trust from files that pin keys or identities. */
export async function readFixedTrust(paths: readonly [string, ...string[]]): Promise<Trust> {
  const trust = await readTrustFiles(paths);
  if (trust.kind === "fixed") return trust;
  throw new Error("these files pin a root");
}

/** A folder of its own with these files in it; gone with `[Symbol.asyncDispose]`. */
export async function tempFolder(
  files: Files = {},
): Promise<{ readonly path: string; readonly source: WritableSource } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "lockkeeper-test-"));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(dirname(join(path, name)), { recursive: true });
    await writeFile(join(path, name), content);
  }
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

/** One signer's line of a release, at once. */
export function signedLine(payload: Uint8Array, key: SigningKey): string {
  const digest = key.public.kind === "ed25519" ? null : "sha256";
  return writeEnvelope(payload, key.public, sign(digest, preAuthEncoding(payloadType, payload), key.key));
}

/** What {@link plant} signs and writes; everything may be wrong on purpose. */
export interface Planted {
  /** a manifest, or bytes that stand for one */
  readonly manifest: Manifest | Buffer;
  /** what the statement says otherwise than a right one would */
  readonly statement?: Partial<ReleaseStatement>;
  /** the payload in place of the statement */
  readonly payload?: (statement: ReleaseStatement) => Buffer;
  readonly keys: readonly SigningKey[];
  /** the release object's lines in place of one bundle a key */
  readonly lines?: (payload: Buffer) => readonly string[];
}

/** Signs whatever it is given, writes it where a runner looks, and points the head at it: a release as a thief of keys could make it. */
export async function plant(destination: WritableSource, planted: Planted): Promise<string> {
  const { manifest, keys } = planted;
  const bytes = Buffer.isBuffer(manifest) ? manifest : writeManifest(manifest);
  const migrations = Buffer.isBuffer(manifest) ? [] : manifest.migrations;
  const issued = new Date(Math.floor(Date.now() / 1000) * 1000);
  const statement: ReleaseStatement = {
    stream: "orders",
    epoch: 1,
    version: 1,
    previous: null,
    manifestSha256: sha256Hex(bytes),
    manifestSize: bytes.length,
    chain: { length: migrations.length, head: migrations.at(-1)?.chain ?? emptyChain("orders") },
    environments: ["default"],
    issued,
    expires: new Date(issued.getTime() + 90 * 86_400_000),
    ...planted.statement,
  };
  const payload = (planted.payload ?? writeStatement)(statement);
  const lines = planted.lines?.(payload) ?? keys.map((key) => signedLine(payload, key));
  const sha256 = sha256Hex(payload);
  await overwrite(destination, layout.manifest(statement.manifestSha256), bytes);
  await overwrite(
    destination,
    layout.release(sha256),
    Buffer.from(lines.map((line) => `${line}\n`).join("")),
  );
  const { epoch, version } = statement;
  await overwrite(destination, layout.head, writeHead({ epoch, version, digest: `sha256:${sha256}` }));
  return `sha256:${sha256}`;
}

/** A right manifest over these up files, without looking into them. */
export function manifestOf(files: Files, stream = "orders"): Manifest {
  const migrations = Object.entries(files).map(([path, content], index): Migration => {
    const bytes = Buffer.from(content);
    const version = /^\d+/.exec(path)?.[0] ?? String(index + 1);
    const facts = { tx: "one", alone: true, locks: [], chain: "" } as const;
    return Object.assign(
      { seq: index + 1, version, path, sha256: sha256Hex(bytes), size: bytes.length },
      facts,
    );
  });
  return rechained({
    stream,
    engine: "postgres",
    format: "golang-migrate",
    parser: "none",
    migrations,
    repeatable: [],
  });
}

/** The manifest with its chain computed anew, as a signer with a defect, or a thief, would. */
export function rechained(manifest: Manifest): Manifest {
  let chain = emptyChain(manifest.stream);
  return {
    ...manifest,
    migrations: manifest.migrations.map((migration) => {
      chain = nextChain(chain, migration);
      return Object.assign({}, migration, { chain });
    }),
  };
}

/** Puts bytes at a key, whatever is there: what anybody with write access to the bucket can do. */
export async function overwrite(destination: WritableSource, key: string, bytes: Uint8Array): Promise<void> {
  const there = await destination.read(key, { maxBytes: 1 << 30 }, never);
  const condition = there === undefined ? ({ absent: true } as const) : { version: there.version };
  const written = await destination.write(key, bytes, condition, never);
  if (written === "conflict") throw new Error(`${key} changed meanwhile`);
}

/** The object's bytes. */
export async function readKey(source: Source, key: string): Promise<Buffer> {
  const object = await source.read(key, { maxBytes: 1 << 30 }, never);
  if (object === undefined) throw new Error(`${key} is not there`);
  return object.bytes;
}

/** A source that writes down every request before it passes it on: `GET head.json`, `PUT blobs/…`, `LIST `. */
export function recorded(source: WritableSource): {
  readonly source: WritableSource;
  readonly requests: string[];
} {
  const requests: string[] = [];
  return {
    requests,
    source: {
      url: source.url,
      list: (prefix, signal) => {
        requests.push(`LIST ${prefix}`);
        return source.list(prefix, signal);
      },
      read: (key, options, signal) => {
        requests.push(`GET ${key}`);
        return source.read(key, options, signal);
      },
      readIfChanged: (key, version, options, signal) => {
        requests.push(`GET ${key}`);
        return source.readIfChanged(key, version, options, signal);
      },
      write: (key, bytes, condition, signal) => {
        requests.push(`PUT ${key}`);
        return source.write(key, bytes, condition, signal);
      },
    },
  };
}
