import { createHash } from "node:crypto";

import type * as Sdk from "@aws-sdk/client-kms";
import * as v from "valibot";

import { RunnerError } from "../../../error.ts";
import type { RunnerErrorCode } from "../../../error.ts";
import { parsePublicKey } from "../key.ts";
import type { KeyKind, PublicKey, Signer } from "../key.ts";
import type { AwsReference } from "./reference.ts";
import { checkedSigner, keyStorePatience, unlessAborted } from "./remote-signer.ts";

/** How to reach AWS KMS. What is absent, the SDK finds in its own environment, files and instance metadata. */
export interface AwsKmsOptions {
  /** another server than AWS, `http://127.0.0.1:4566` */
  readonly endpoint?: string;
  readonly region?: string;
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: string };
}

/** bytes that KMS signs as they are; it hashes nothing longer for us */
const maxRawBytes = 4_096;

/**
 * A key that AWS KMS keeps: `ECC_NIST_P256` or `ECC_NIST_EDWARDS25519`.
 *
 * @throws RunnerError `CONFIG` — the SDK is not installed, or no region is known; `KEY_STORE`; `KEY_ALG`
 */
export async function openAwsSigner(
  reference: AwsReference,
  options: AwsKmsOptions = {},
  signal: AbortSignal,
): Promise<Signer> {
  const what = `"awskms:///${reference.key}"`;
  const { KMSClient, GetPublicKeyCommand, SignCommand } = await loadSdk();
  const client = makeClient(KMSClient, reference, options);
  const answer = await ask(what, signal, (abortSignal) =>
    client.send(new GetPublicKeyCommand({ KeyId: reference.key }), { abortSignal }),
  );
  const key = readPublicKey(answer.PublicKey, answer.KeyUsage, what);
  return checkedSigner(key, what, async (message, signal) => {
    // an alias may be moved to another key meanwhile: what was looked at is what signs
    const input = { KeyId: answer.KeyId ?? reference.key, ...wayOfSigning(key.kind, message, what) };
    const { Signature } = await ask(what, signal, (abortSignal) =>
      client.send(new SignCommand(input), { abortSignal }),
    );
    return Signature ?? Buffer.alloc(0);
  });
}

const packageName = "@aws-sdk/client-kms";

async function loadSdk(): Promise<typeof Sdk> {
  try {
    return await import("@aws-sdk/client-kms");
  } catch (cause) {
    throw new RunnerError("CONFIG", `signing with AWS KMS needs the package ${packageName}`, {
      hint: `npm install ${packageName}@3 (with --global where lockkeeper is installed so)`,
      cause,
    });
  }
}

function makeClient(
  Client: typeof Sdk.KMSClient,
  reference: AwsReference,
  options: AwsKmsOptions,
): Sdk.KMSClient {
  const region = reference.region ?? options.region;
  const endpoint = reference.endpoint ?? options.endpoint;
  return new Client({
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(options.credentials === undefined ? {} : { credentials: options.credentials }),
    maxAttempts: keyStorePatience.attempts,
    requestHandler: {
      connectionTimeout: keyStorePatience.connectMs,
      socketTimeout: keyStorePatience.idleMs,
    },
  });
}

function readPublicKey(der: Uint8Array | undefined, usage: string | undefined, what: string): PublicKey {
  if (der === undefined) {
    throw new RunnerError("KEY_STORE", `${what}: the server gave no public key`, {
      hint: "check which server answers",
    });
  }
  if (usage !== undefined && usage !== "SIGN_VERIFY") throw notForSigning(what, usage);
  const base64 = Buffer.from(der).toString("base64");
  return parsePublicKey(`-----BEGIN PUBLIC KEY-----\n${base64}\n-----END PUBLIC KEY-----\n`, what);
}

/** `ED25519_PH_SHA_512` would sign a hash in place of the message, which no verifier of ours takes. */
function wayOfSigning(kind: KeyKind, message: Uint8Array, what: string) {
  switch (kind) {
    case "ecdsa-p256":
      return {
        Message: createHash("sha256").update(message).digest(),
        MessageType: "DIGEST",
        SigningAlgorithm: "ECDSA_SHA_256",
      } as const;
    case "ed25519":
      if (message.length > maxRawBytes) {
        throw new RunnerError(
          "KEY_ALG",
          `${what}: with Ed25519, AWS KMS signs at most ${maxRawBytes} bytes, and these are ${message.length}`,
          { hint: "name fewer environments, or sign with a P-256 key" },
        );
      }
      return { Message: message, MessageType: "RAW", SigningAlgorithm: "ED25519_SHA_512" } as const;
  }
}

/** One request with its retries; neither a lost network nor a search for credentials outlives the signal. */
async function ask<T>(
  what: string,
  signal: AbortSignal,
  request: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  try {
    return await unlessAborted(request(signal), signal);
  } catch (error) {
    signal.throwIfAborted();
    throw awsFailure(error, what);
  }
}

/** What the SDK hangs on its errors, as far as it is there. */
const sdkError = v.object({
  name: v.optional(v.string(), ""),
  message: v.optional(v.string(), ""),
  code: v.optional(v.unknown()),
  $metadata: v.optional(v.object({ httpStatusCode: v.optional(v.number()) })),
});

/** What the names of KMS's refusals mean to the person who signs. */
const refusals: Readonly<Record<string, { readonly text: string; readonly hint: string }>> = {
  CredentialsProviderError: {
    text: "no AWS credentials were found",
    hint: "give the process a role, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
  },
  NotFoundException: { text: "there is no such key", hint: "check its id, the region and the account" },
  DisabledException: { text: "the key is disabled", hint: "enable it, or sign with another one" },
  KMSInvalidStateException: {
    text: "the key cannot be used in its present state",
    hint: "see its state in KMS: it may be disabled or about to be deleted",
  },
  ThrottlingException: { text: "KMS turned the request away, too many come", hint: "try again in a minute" },
};

function awsFailure(thrown: unknown, what: string): RunnerError {
  const parsed = v.safeParse(sdkError, thrown);
  const { name, message, code, $metadata } = parsed.success
    ? parsed.output
    : { name: "", message: "", code: undefined, $metadata: undefined };
  const status = $metadata?.httpStatusCode;
  // without the answer: some servers repeat in it what was signed, a session's token among it
  const cause = new Error(`${name}: ${message}`);
  const failure = (failed: RunnerErrorCode, text: string, hint: string): RunnerError =>
    new RunnerError(failed, `${what}: ${text}`, {
      hint,
      fields: { ...(status === undefined ? {} : { status }), ...(name === "" ? {} : { reason: name }) },
      cause,
    });
  const refusal = refusals[name];
  if (refusal !== undefined) return failure("KEY_STORE", refusal.text, refusal.hint);
  if (name === "UnsupportedOperationException" || name === "InvalidKeyUsageException")
    return notForSigning(what, name);
  if (message === "Region is missing")
    return failure("CONFIG", "the key's region is not known", "set AWS_REGION, or name the key by its ARN");
  if (status === 401 || status === 403 || /AccessDenied|Unrecognized|Expired|InvalidSignature/.test(name)) {
    return failure(
      "KEY_STORE",
      `the request was denied (${name})`,
      "grant kms:GetPublicKey and kms:Sign on this key to whoever signs, and see that the credentials are current",
    );
  }
  if (status === 400)
    return failure("KEY_STORE", `the request was refused (${name})`, "check the key's name and kind");
  const reason = typeof code === "string" ? code : status === undefined ? name : `${status} ${name}`;
  return failure(
    "KEY_STORE",
    `KMS cannot be reached (${reason})`,
    "check the network, the region and AWS_ENDPOINT_URL_KMS; then try again",
  );
}

function notForSigning(what: string, usage: string): RunnerError {
  return new RunnerError("KEY_ALG", `${what} is no key for signing (${usage})`, {
    hint: "make one of usage SIGN_VERIFY, and of kind ECC_NIST_P256 or ECC_NIST_EDWARDS25519",
  });
}
