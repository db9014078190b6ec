import { RunnerError } from "../../error.ts";
import { generateKey, parsePrivateKey } from "./key.ts";
import type { KeyKind, PublicKey, SigningKey } from "./key.ts";
import { createFile, readSmallFile } from "./small-file.ts";

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
  await createFile(path, privatePem, keyFile(0o600));
  await createFile(publicPath, publicPem, keyFile(0o644));
  return { privatePath: path, publicPath, id };
}

/**
 * The public half of a key that is kept elsewhere, in `path.pub`. Replaces nothing.
 *
 * @throws RunnerError `KEY_INVALID` — the file is there already, or cannot be written
 */
export async function writePublicKeyFile(path: string, { key }: PublicKey): Promise<string> {
  const publicPath = `${path}.pub`;
  await createFile(publicPath, String(key.export({ type: "spki", format: "pem" })), keyFile(0o644));
  return publicPath;
}

/**
 * The private key in a file.
 *
 * @throws RunnerError `KEY_PASSPHRASE`, `KEY_ALG`, `KEY_INVALID`
 */
export async function readSigningKey(path: string, passphrase: string | undefined): Promise<SigningKey> {
  const text = String(await readSmallFile(path, "KEY_INVALID"));
  if (!text.includes("PRIVATE") && text.includes("PUBLIC KEY")) {
    throw new RunnerError("KEY_INVALID", `"${path}" is a public key, and signing takes the private one`, {
      hint: "name the file without .pub",
    });
  }
  return parsePrivateKey(text, passphrase, `"${path}"`);
}

function keyFile(mode: number) {
  return { code: "KEY_INVALID", mode, whyNot: "a key file is never replaced: choose another name" } as const;
}
