import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  sign,
  verify,
} from "node:crypto";
import type { KeyObject } from "node:crypto";

import { RunnerError } from "../../error.ts";

/** The two ways of signing a release. The algorithm is fixed by the key, never by what is signed. */
export type KeyKind = "ecdsa-p256" | "ed25519";

/** A key whose signatures may count. */
export interface PublicKey {
  readonly kind: KeyKind;
  /** `sha256:<hex>` over the key's SPKI in DER with its point uncompressed: two encodings of one key are one key */
  readonly id: string;
  /** as {@link id}, base64 without prefix: what cosign writes as a bundle's `hint` */
  readonly hint: string;
  readonly key: KeyObject;
}

/** Whoever signs with a key: a file's key, or a service that keeps one and never hands it out. */
export interface Signer {
  readonly public: PublicKey;
  /** The signature over `message`: DER for P-256 with SHA-256, 64 bytes for pure Ed25519. */
  sign(message: Uint8Array, signal: AbortSignal): Promise<Buffer>;
}

/** A key at hand that can sign. */
export interface SigningKey extends Signer {
  readonly key: KeyObject;
}

/**
 * PEM text → public key.
 *
 * Only ECDSA on P-256 and Ed25519: `createPublicKey` also takes private keys, RSA of any size and every curve.
 *
 * @throws RunnerError `KEY_PRIVATE` — the text holds a private key; `KEY_ALG` — another algorithm or curve; `KEY_INVALID` — no single public key
 */
export function parsePublicKey(pem: string, what: string): PublicKey {
  if (pem.includes("PRIVATE")) {
    throw new RunnerError("KEY_PRIVATE", `${what} holds a private key`, {
      hint: "name the public key (the .pub file), and replace this key pair if the file was shared",
    });
  }
  // certificates would load too, but their validity and names would not be looked at
  if (pem.split("-----BEGIN ").length !== 2 || !pem.includes("-----BEGIN PUBLIC KEY-----")) {
    throw new RunnerError("KEY_INVALID", `${what} is not one PEM public key`, {
      hint: "it must hold one block that begins with -----BEGIN PUBLIC KEY-----",
    });
  }
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch (error) {
    throw new RunnerError("KEY_INVALID", `${what} cannot be read as a public key`, { cause: error });
  }
  return publicKey(key, what);
}

/**
 * PEM text → signing key. Takes PKCS#8, encrypted or not, and SEC1 (`EC PRIVATE KEY`).
 *
 * @throws RunnerError `KEY_PASSPHRASE` — it is encrypted and the passphrase is absent or wrong; `KEY_ALG`; `KEY_INVALID`
 */
export function parsePrivateKey(pem: string, passphrase: string | undefined, what: string): SigningKey {
  if (pem.includes("SIGSTORE PRIVATE KEY") || pem.includes("COSIGN PRIVATE KEY")) {
    throw new RunnerError("KEY_INVALID", `${what} is a key of cosign's own format`, {
      hint: "sign with cosign attest-blob --statement, or make a key with lockkeeper keygen",
    });
  }
  const isEncrypted = pem.includes("ENCRYPTED");
  if (isEncrypted && passphrase === undefined) {
    throw new RunnerError("KEY_PASSPHRASE", `${what} is encrypted and no passphrase was given`);
  }
  let key: KeyObject;
  try {
    key = createPrivateKey({ key: pem, ...(passphrase !== undefined && { passphrase }) });
  } catch (error) {
    if (isEncrypted) {
      throw new RunnerError("KEY_PASSPHRASE", `${what} cannot be opened with the given passphrase`, {
        cause: error,
      });
    }
    throw new RunnerError("KEY_INVALID", `${what} cannot be read as a private key`, {
      hint: "it must be PEM, PKCS#8, as lockkeeper keygen or openssl genpkey writes it",
      cause: error,
    });
  }
  const ours = publicKey(createPublicKey(key), what);
  return {
    public: ours,
    key,
    sign: (message) => Promise.resolve(sign(digestOf(ours.kind), message, key)),
  };
}

/**
 * A new key pair as PEM texts: the private one PKCS#8, encrypted (AES-256-CBC, PBES2) when a passphrase is given.
 *
 * P-256 is the default everywhere: cosign and every cloud's key store can sign with it.
 */
export function generateKey(
  kind: KeyKind,
  passphrase: string | undefined,
): { privatePem: string; publicPem: string; id: string } {
  const pair =
    kind === "ed25519"
      ? generateKeyPairSync("ed25519")
      : generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const privatePem = pair.privateKey.export({
    type: "pkcs8",
    format: "pem",
    ...(passphrase !== undefined && { cipher: "aes-256-cbc", passphrase }),
  });
  return {
    privatePem: String(privatePem),
    publicPem: String(pair.publicKey.export({ type: "spki", format: "pem" })),
    id: publicKey(pair.publicKey, "the new key").id,
  };
}

/** Whether `signature` over `message` is this key's. Anything malformed is false. */
export function isSignedBy(message: Uint8Array, signature: Uint8Array, key: PublicKey): boolean {
  try {
    return verify(digestOf(key.kind), message, key.key, signature);
  } catch {
    // OpenSSL throws for some malformed signatures and returns false for others; neither counts
    return false;
  }
}

/** `crypto.verify(null, …)` would also take an EC key and choose a digest by itself. */
function digestOf(kind: KeyKind): "sha256" | null {
  return kind === "ed25519" ? null : "sha256";
}

function publicKey(key: KeyObject, what: string): PublicKey {
  const kind = kindOf(key);
  if (kind === undefined) {
    throw new RunnerError("KEY_ALG", `${what} is neither ECDSA on P-256 nor Ed25519`, {
      fields: { algorithm: key.asymmetricKeyDetails?.namedCurve ?? key.asymmetricKeyType ?? "unknown" },
    });
  }
  // Re-exporting keeps a compressed point compressed: only by way of its numbers does one key have one encoding.
  const canonical = createPublicKey({ key: key.export({ format: "jwk" }), format: "jwk" });
  const digest = createHash("sha256")
    .update(canonical.export({ type: "spki", format: "der" }))
    .digest();
  return {
    kind,
    id: `sha256:${digest.toString("hex")}`,
    hint: digest.toString("base64"),
    key: canonical,
  };
}

function kindOf(key: KeyObject): KeyKind | undefined {
  if (key.asymmetricKeyType === "ed25519") return "ed25519";
  const isP256 = key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1";
  return isP256 ? "ecdsa-p256" : undefined;
}
