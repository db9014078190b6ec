import { open } from "node:fs/promises";
import { dirname, resolve } from "node:path";

import { RunnerError } from "../error.ts";
import type { RunnerErrorCode } from "../error.ts";
import { generateKey, parsePrivateKey, parsePublicKey } from "./key.ts";
import type { KeyKind, PublicKey, SigningKey } from "./key.ts";
import { releaseLimits } from "./limits.ts";
import { parseStrictJson } from "./strict-json.ts";
import { joinTrusts, makeTrust, readTrustText } from "./trust.ts";
import type { Trust } from "./trust.ts";

/**
 * A new key pair in two files: `path` (private, readable by its owner only) and `path.pub`. Replaces nothing.
 *
 * @throws RunnerError `KEY_INVALID` — one of the files is there already, or cannot be written
 */
export async function writeKeyFiles(
  path: string,
  kind: KeyKind,
  passphrase: string | undefined,
): Promise<{ readonly privatePath: string; readonly publicPath: string; readonly id: string }> {
  const { privatePem, publicPem, id } = generateKey(kind, passphrase);
  const publicPath = `${path}.pub`;
  await createFile(path, privatePem, 0o600);
  await createFile(publicPath, publicPem, 0o644);
  return { privatePath: path, publicPath, id };
}

/**
 * The private key in a file.
 *
 * @throws RunnerError `KEY_PASSPHRASE`, `KEY_ALG`, `KEY_INVALID`
 */
export async function readSigningKey(path: string, passphrase: string | undefined): Promise<SigningKey> {
  const text = await readText(path, "KEY_INVALID");
  if (!text.includes("PRIVATE") && text.includes("PUBLIC KEY")) {
    throw new RunnerError("KEY_INVALID", `"${path}" is a public key, and signing takes the private one`, {
      hint: "name the file without .pub",
    });
  }
  return parsePrivateKey(text, passphrase, `"${path}"`);
}

/**
 * One trust from files, each a public key or a trust file (JSON), as `--trust` names them: the keys of all, and the strictest rules.
 *
 * @throws RunnerError `TRUST_INVALID`, `KEY_PRIVATE`, `KEY_ALG`, `KEY_INVALID`
 */
export async function readTrustFiles(paths: readonly [string, ...string[]]): Promise<Trust> {
  const [first, ...rest] = paths;
  return joinTrusts([await readTrustFile(first), ...(await Promise.all(rest.map(readTrustFile)))]);
}

/**
 * A trust as the configuration has it; paths of keys are taken from `folder`.
 *
 * @throws RunnerError as {@link readTrustFiles}
 */
export async function readTrust(value: unknown, folder: string, what: string): Promise<Trust> {
  const text = readTrustText(value, what);
  return makeTrust(text, await Promise.all(text.keys.map((key) => readPublicKey(key, folder))), what);
}

async function readTrustFile(path: string): Promise<Trust> {
  const text = await readText(path, "TRUST_INVALID");
  const what = `"${path}"`;
  if (!text.trimStart().startsWith("{"))
    return makeTrust({ keys: [text] }, [parsePublicKey(text, what)], what);
  const value = parseStrictJson(Buffer.from(text), what, releaseLimits.keyFileBytes);
  return readTrust(value, dirname(path), what);
}

async function readPublicKey(key: string, folder: string): Promise<PublicKey> {
  if (key.includes("-----BEGIN ")) return parsePublicKey(key, "a key in the trust");
  return parsePublicKey(await readText(resolve(folder, key), "KEY_INVALID"), `"${key}"`);
}

async function readText(path: string, code: RunnerErrorCode): Promise<string> {
  try {
    await using file = await open(path, "r");
    const { size } = await file.stat();
    if (size <= releaseLimits.keyFileBytes) return await file.readFile("utf8");
  } catch (error) {
    throw new RunnerError(code, `cannot read "${path}"`, {
      hint: "check the path and who may read it",
      cause: error,
    });
  }
  throw new RunnerError(code, `"${path}" has more than ${releaseLimits.keyFileBytes} bytes, so it is no key`);
}

async function createFile(path: string, text: string, mode: number): Promise<void> {
  try {
    await using file = await open(path, "wx", mode);
    await file.writeFile(text);
  } catch (error) {
    throw new RunnerError("KEY_INVALID", `cannot create "${path}"`, {
      hint: "a key file is never replaced; choose another name, or a folder that can be written",
      cause: error,
    });
  }
}
