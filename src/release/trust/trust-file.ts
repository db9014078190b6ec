import { dirname, resolve } from "node:path";

import { RunnerError } from "../../error.ts";
import { sha256Hex } from "../../migration/checksum.ts";
import type { TrustAnchor } from "./anchor.ts";
import type { KeylessVerifier } from "./identity.ts";
import { parsePublicKey } from "./key.ts";
import type { PublicKey } from "./key.ts";
import { releaseLimits } from "../limits.ts";
import { makeRoot, readRoot } from "../root/root.ts";
import type { Root } from "../root/root.ts";
import { managedTrust } from "../root/root-trust.ts";
import type { PinnedRoot } from "../root/root-trust.ts";
import { readSmallFile } from "./small-file.ts";
import { parseStrictJson } from "../strict-json.ts";
import { joinTrusts, makeTrust } from "./trust.ts";
import type { FixedTrustText, Trust } from "./trust.ts";
import { isManagedText, isRootDocument, readTrustText } from "./trust-text.ts";
import type { ManagedTrustText } from "./trust-text.ts";

/**
 * One trust from files, each a public key, a trust file or a root document, as `--trust` names them: the signers of all, and the
 * strictest rules. A root stands alone: who else is trusted is its own to say.
 *
 * @throws RunnerError `TRUST_INVALID`, `KEY_PRIVATE`, `KEY_ALG`, `KEY_INVALID`, `ROOT_INVALID`
 */
export async function readTrustFiles(paths: readonly [string, ...string[]]): Promise<TrustAnchor> {
  const [first, ...rest] = paths;
  const one = await readTrustFile(first);
  if (rest.length === 0) return one;
  return joinTrusts([
    assertFixed(one, first),
    ...(await Promise.all(rest.map(async (path) => assertFixed(await readTrustFile(path), path)))),
  ]);
}

/**
 * A trust as the configuration has it; paths in it are taken from `folder`.
 *
 * @throws RunnerError as {@link readTrustFiles}
 */
export async function readTrust(value: unknown, folder: string, what: string): Promise<TrustAnchor> {
  const text = readTrustText(value, what);
  if (isManagedText(text)) return managedTrust(await readPinned(text, folder, what));
  return readFixed(text, folder, what);
}

/**
 * The root that a file pins: a root document, or a trust file that names one.
 *
 * @throws RunnerError `TRUST_INVALID` — it pins keys; as {@link readTrustFiles}
 */
export async function readPinnedRoot(path: string): Promise<PinnedRoot> {
  const what = `"${path}"`;
  const bytes = await readSmallFile(path, "TRUST_INVALID");
  if (isJson(bytes)) {
    const value = parseStrictJson(bytes, what, releaseLimits.keyFileBytes);
    const text = isRootDocument(value) ? { root: String(bytes) } : readTrustText(value, what);
    if (isManagedText(text)) return readPinned(text, dirname(path), what);
  }
  throw new RunnerError("TRUST_INVALID", `${what} pins keys, no root`, {
    hint: "name the first root's document, as the runners pin it",
  });
}

async function readTrustFile(path: string): Promise<TrustAnchor> {
  const bytes = await readSmallFile(path, "TRUST_INVALID");
  const what = `"${path}"`;
  const text = bytes.toString();
  if (!isJson(bytes)) return makeTrust({ keys: [text] }, [parsePublicKey(text, what)], what);
  const value = parseStrictJson(bytes, what, releaseLimits.keyFileBytes);
  return readTrust(isRootDocument(value) ? { root: text } : value, dirname(path), what);
}

async function readFixed(text: FixedTrustText, folder: string, what: string): Promise<Trust> {
  const { keys = [], identities = {}, timestamp } = text;
  const domains = new Set(Object.values(identities).map(({ trustDomain }) => trustDomain));
  const known = text.trustDomains ?? {};
  const unknown = [...domains].find((name) => !Object.hasOwn(known, name));
  if (unknown !== undefined) {
    throw new RunnerError("TRUST_INVALID", `${what} has no trusted root for "${unknown}"`, {
      hint: "name its trusted_root.json under trustDomains",
    });
  }
  const readKeys = (names: readonly string[]): Promise<readonly PublicKey[]> =>
    Promise.all(names.map((key) => readPublicKey(key, folder)));
  return makeTrust(text, await readKeys(keys), what, {
    timestampKeys: await readKeys(timestamp?.keys ?? []),
    keyless: domains.size === 0 ? null : await openKeyless(await readTrustDomains(known, folder)),
  });
}

async function readPinned(text: ManagedTrustText, folder: string, what: string): Promise<PinnedRoot> {
  return {
    root: await readPinnedDocument(text, folder, what),
    minRootVersion: text.minRootVersion ?? 1,
    trustDomains: await readTrustDomains(text.trustDomains ?? {}, folder),
  };
}

async function readPinnedDocument(
  { root, sha256 }: ManagedTrustText,
  folder: string,
  what: string,
): Promise<Root> {
  const title = `the root of ${what}`;
  if (typeof root !== "string") {
    if (sha256 === undefined) return makeRoot(root, title);
    throw new RunnerError("TRUST_INVALID", `${what} pins the bytes of a root that it holds as an object`, {
      hint: "leave sha256 out, or name the root's file",
    });
  }
  const inline = Buffer.from(root);
  const bytes = isJson(inline) ? inline : await readSmallFile(resolve(folder, root), "TRUST_INVALID");
  if (sha256 !== undefined && sha256Hex(bytes) !== sha256) {
    throw new RunnerError("TRUST_INVALID", `${title} is not the file that is pinned`, {
      hint: "restore the file; a newer root is found by itself, and is pinned only to begin from it",
      fields: { expected: sha256, actual: sha256Hex(bytes) },
    });
  }
  return readRoot(bytes, title);
}

async function readPublicKey(key: string, folder: string): Promise<PublicKey> {
  if (key.includes("-----BEGIN ")) return parsePublicKey(key, "a key in the trust");
  return parsePublicKey(String(await readSmallFile(resolve(folder, key), "KEY_INVALID")), `"${key}"`);
}

async function readTrustDomains(
  paths: Readonly<Record<string, string>>,
  folder: string,
): Promise<ReadonlyMap<string, unknown>> {
  const read = async ([name, path]: readonly [string, string]) => {
    const bytes = await readSmallFile(resolve(folder, path), "TRUST_INVALID");
    return [name, parseJson(bytes, `the trusted root of "${name}"`)] as const;
  };
  return new Map(await Promise.all(Object.entries(paths).map(read)));
}

/** A key is PEM, a path is neither; all else here is an object. */
function isJson(bytes: Buffer): boolean {
  return bytes.toString().trimStart().startsWith("{");
}

/** Not strict: it is Sigstore's format and the deployment's own file. */
function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch (cause) {
    throw new RunnerError("TRUST_INVALID", `${what} is not valid JSON`, { cause });
  }
}

async function openKeyless(trustDomains: ReadonlyMap<string, unknown>): Promise<KeylessVerifier> {
  const { loadKeyless } = await import("./keyless.ts");
  return loadKeyless(trustDomains);
}

function assertFixed(trust: TrustAnchor, path: string): Trust {
  if (trust.kind === "fixed") return trust;
  throw new RunnerError(
    "TRUST_INVALID",
    `"${path}" pins a root, and a root is not joined with other trusts`,
    {
      hint: "name the root alone; keys are added by its next version",
    },
  );
}
