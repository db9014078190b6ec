import { createHash, generateKeyPairSync, sign } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";

import {
  CreateAliasCommand,
  CreateKeyCommand,
  DisableKeyCommand,
  KMSClient,
  UpdateAliasCommand,
} from "@aws-sdk/client-kms";
import type { CreateKeyCommandInput } from "@aws-sdk/client-kms";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";

import { readEnvelopes, signEnvelope } from "../../src/release/envelope.ts";
import { isSignedBy } from "../../src/release/trust/key.ts";
import { crc32c } from "../../src/release/trust/key-store/crc32c.ts";
import { openSigner } from "../../src/release/trust/key-store/open-signer.ts";
import type { KeyStoreOptions } from "../../src/release/trust/key-store/open-signer.ts";
import { parseKeyReference } from "../../src/release/trust/key-store/reference.ts";
import { signersOf } from "../../src/release/trust/signers.ts";
import { startS3 } from "../support/bucket.ts";
import type { S3Server } from "../support/bucket.ts";
import { needs } from "../support/parts.ts";
import { makeKey, never, publishTo, readKey, tempFolder } from "../support/release.ts";

const payload = Buffer.from('{"_type":"https://in-toto.io/Statement/v1"}');
const region = "us-east-1";

/** What a server of AWS's API needs to be spoken to, and a client to make keys with. */
function kmsOf({ endpoint, credentials }: S3Server) {
  const client = new KMSClient({ endpoint, region, credentials });
  return {
    client,
    options: { aws: { endpoint, region, credentials } } satisfies KeyStoreOptions,
    async createKey(input: CreateKeyCommandInput): Promise<{ readonly id: string; readonly arn: string }> {
      const { KeyMetadata } = await client.send(new CreateKeyCommand(input));
      return { id: KeyMetadata?.KeyId ?? "", arn: KeyMetadata?.Arn ?? "" };
    },
  };
}

const p256 = { KeySpec: "ECC_NIST_P256", KeyUsage: "SIGN_VERIFY" } as const;
const ed25519 = { KeySpec: "ECC_NIST_EDWARDS25519", KeyUsage: "SIGN_VERIFY" } as const;

describe("a key's reference", () => {
  const id = "1234abcd-12ab-34cd-56ef-1234567890ab";
  const key = "projects/p/locations/europe-west1/keyRings/r/cryptoKeys/k";

  test.for([
    ["orders.key", { kind: "file", path: "orders.key" }],
    ["./a b/c:d.pem", { kind: "file", path: "./a b/c:d.pem" }],
    [`awskms:///${id}`, { kind: "aws", key: id }],
    ["awskms:///alias/orders/prod", { kind: "aws", key: "alias/orders/prod" }],
    [`awskms:///mrk-${"0".repeat(32)}`, { kind: "aws", key: `mrk-${"0".repeat(32)}` }],
    [
      `awskms:///arn:aws:kms:eu-west-3:111122223333:key/${id}`,
      { kind: "aws", key: `arn:aws:kms:eu-west-3:111122223333:key/${id}`, region: "eu-west-3" },
    ],
    [
      "awskms:///arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/orders",
      {
        kind: "aws",
        key: "arn:aws-us-gov:kms:us-gov-west-1:111122223333:alias/orders",
        region: "us-gov-west-1",
      },
    ],
    [`awskms://kms.internal:4566/${id}`, { kind: "aws", key: id, endpoint: "https://kms.internal:4566" }],
    [`gcpkms://${key}/cryptoKeyVersions/7`, { kind: "gcp", name: `${key}/cryptoKeyVersions/7` }],
    [`gcpkms://${key}/versions/7`, { kind: "gcp", name: `${key}/cryptoKeyVersions/7` }],
  ] as const)("%s is understood", ([text, reference]) => {
    expect(parseKeyReference(text)).toEqual(reference);
  });

  test.for([
    ["awskms:///", "names no key of AWS KMS"],
    ["awskms:///orders", "names no key of AWS KMS"],
    ["awskms:///alias/../x?y", "names no key of AWS KMS"],
    [`awskms://user:hunter2@host/${id}`, "names no key of AWS KMS"],
    [`gcpkms://${key}`, "names no version of a key"],
    [`gcpkms://${key}/cryptoKeyVersions/latest`, "names no key of Google"],
    ["gcpkms://projects/p/locations/../keyRings/r/cryptoKeys/k/versions/1?x", "names no key of Google"],
    ["azurekms://vault/key", "names a key store that lockkeeper does not speak to"],
    ["hashivault://orders", "names a key store that lockkeeper does not speak to"],
  ] as const)("%s is USAGE, and says what to write", async ([text, message]) => {
    await expect(openSigner(text, {}, never)).rejects.toMatchObject({
      code: "USAGE",
      message: expect.stringContaining(message) as string,
      hint: expect.stringMatching(/awskms:\/\/\/|gcpkms:\/\/projects|--statement/) as string,
    });
  });
});

describe("a key in a file", () => {
  test("signs, encrypted or not; without its passphrase it does not", async () => {
    await using folder = await tempFolder();
    const key = makeKey("ed25519");
    const path = join(folder.path, "key");
    await writeFile(path, key.privatePem);
    const signer = await openSigner(path, {}, never);
    expect(isSignedBy(payload, await signer.sign(payload, never), key.public)).toBe(true);
    const passphrase = "correct horse";
    await writeFile(
      path,
      key.key.export({ type: "pkcs8", format: "pem", cipher: "aes-256-cbc", passphrase }),
    );
    expect((await openSigner(path, { passphrase }, never)).public.id).toBe(key.id);
    for (const wrong of [undefined, "wrong"]) {
      await expect(openSigner(path, { passphrase: wrong }, never)).rejects.toMatchObject({
        code: "KEY_PASSPHRASE",
      });
    }
  });
});

describe("AWS KMS as MiniStack has it", () => {
  needs("ministack");
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3("ministack");
  });
  afterAll(() => server?.stop());

  test.for([
    ["ecdsa-p256", p256],
    ["ed25519", ed25519],
  ] as const)("signs a release with %s that a runner takes", async ([kind, input]) => {
    const { options, createKey } = kmsOf(server);
    const { id } = await createKey(input);
    const signer = await openSigner(`awskms:///${id}`, options, never);
    expect(signer.public.kind).toBe(kind);
    await using bucket = await tempFolder();
    const { digest } = await publishTo(
      bucket.source,
      { "1_t.up.sql": "create table t (id int);" },
      { keys: [signer] },
    );
    const envelopes = readEnvelopes(
      await readKey(bucket.source, `releases/sha256-${digest.slice(7)}.sigstore.jsonl`),
    );
    const known = { keys: [signer.public], identities: [], keyless: null };
    expect(signersOf(envelopes, known).map((one) => one.id)).toEqual([signer.public.id]);
  });

  test("is asked by alias and by ARN", async () => {
    const { client, options, createKey } = kmsOf(server);
    const { id, arn } = await createKey(p256);
    await client.send(new CreateAliasCommand({ AliasName: "alias/orders", TargetKeyId: id }));
    for (const name of ["alias/orders", arn]) {
      const signer = await openSigner(`awskms:///${name}`, options, never);
      expect(readEnvelopes(Buffer.from(await signEnvelope(payload, signer, never)))).toHaveLength(1);
    }
  });

  test("goes on signing with the key that was looked at, though its alias was moved", async () => {
    const { client, options, createKey } = kmsOf(server);
    const [first, second] = [await createKey(p256), await createKey(p256)];
    await client.send(new CreateAliasCommand({ AliasName: "alias/moved", TargetKeyId: first.id }));
    const signer = await openSigner("awskms:///alias/moved", options, never);
    await client.send(new UpdateAliasCommand({ AliasName: "alias/moved", TargetKeyId: second.id }));
    expect(isSignedBy(payload, await signer.sign(payload, never), signer.public)).toBe(true);
  });

  test("that has no such key, one for something else, or one of another kind, says so", async () => {
    const { client, options, createKey } = kmsOf(server);
    const symmetric = await createKey({});
    const rsa = await createKey({ KeySpec: "RSA_2048", KeyUsage: "SIGN_VERIFY" });
    const p384 = await createKey({ KeySpec: "ECC_NIST_P384", KeyUsage: "SIGN_VERIFY" });
    const disabled = await createKey(p256);
    const signer = await openSigner(`awskms:///${disabled.id}`, options, never);
    await client.send(new DisableKeyCommand({ KeyId: disabled.id }));
    await expect(signer.sign(payload, never)).rejects.toMatchObject({ code: "KEY_STORE" });
    const cases = [
      ["00000000-0000-4000-8000-000000000000", "KEY_STORE"],
      [symmetric.id, "KEY_ALG"],
      [rsa.id, "KEY_ALG"],
      [p384.id, "KEY_ALG"],
    ] as const;
    for (const [id, code] of cases) {
      await expect(openSigner(`awskms:///${id}`, options, never), id).rejects.toMatchObject({ code });
    }
  });

  test("signs no more with Ed25519 than KMS takes as it is", async () => {
    const { options, createKey } = kmsOf(server);
    const { id } = await createKey(ed25519);
    const signer = await openSigner(`awskms:///${id}`, options, never);
    expect(
      isSignedBy(Buffer.alloc(4_096), await signer.sign(Buffer.alloc(4_096), never), signer.public),
    ).toBe(true);
    await expect(signer.sign(Buffer.alloc(4_097), never)).rejects.toMatchObject({
      code: "KEY_ALG",
      hint: expect.stringContaining("P-256") as string,
    });
  });
});

describe("AWS KMS that answers wrongly", () => {
  needs("ministack");
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3("ministack");
  });
  afterAll(() => server?.stop());

  /** What stands between us and the server: passes requests on, but for those that `fault` answers. */
  async function between(fault: (action: string) => { status: number; body: object } | undefined) {
    const { options, createKey, client } = kmsOf(server);
    const endpoint = await serve(async (request, body) => {
      const action = String(request.headers["x-amz-target"]).replace("TrentService.", "");
      const answer = fault(action);
      if (answer !== undefined) return answer;
      const headers = {
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": `TrentService.${action}`,
      };
      const passed = await fetch(server.endpoint, {
        method: "POST",
        headers: { ...headers, authorization: String(request.headers.authorization) },
        body,
      });
      return { status: passed.status, body: (await passed.json()) as object };
    });
    return { createKey, client, options: { aws: { ...options.aws, endpoint } } satisfies KeyStoreOptions };
  }

  test.for([
    [400, "AccessDeniedException", "grant kms:GetPublicKey and kms:Sign"],
    [400, "ExpiredTokenException", "credentials are current"],
    [400, "ThrottlingException", "try again in a minute"],
    [400, "ValidationException", "check the key's name and kind"],
    [500, "KMSInternalException", "try again"],
  ] as const)("with %i %s is KEY_STORE, and says what to do", async ([status, type, hint]) => {
    const { createKey, options } = await between((action) =>
      action === "GetPublicKey"
        ? { status, body: { __type: type, message: "arn:aws:iam::111122223333:user/hunter2" } }
        : undefined,
    );
    const { id } = await createKey(p256);
    const opening = openSigner(`awskms:///${id}`, options, never);
    await expect(opening).rejects.toMatchObject({
      code: "KEY_STORE",
      hint: expect.stringContaining(hint) as string,
      message: expect.not.stringContaining("hunter2") as string,
    });
  });

  test("with another key's signature is KEY_STORE, and the signature is not used", async () => {
    const stranger = makeKey();
    const { createKey, options } = await between((action) =>
      action === "Sign"
        ? { status: 200, body: { Signature: sign("sha256", payload, stranger.key).toString("base64") } }
        : undefined,
    );
    const signer = await openSigner(`awskms:///${(await createKey(p256)).id}`, options, never);
    await expect(signer.sign(payload, never)).rejects.toMatchObject({
      code: "KEY_STORE",
      message: expect.stringContaining("not its own") as string,
    });
  });

  test("that cannot be reached is KEY_STORE", async () => {
    const { id } = await kmsOf(server).createKey(p256);
    const aws = { ...kmsOf(server).options.aws, endpoint: "http://127.0.0.1:1" };
    await expect(openSigner(`awskms:///${id}`, { aws }, never)).rejects.toMatchObject({
      code: "KEY_STORE",
      message: expect.stringContaining("cannot be reached (ECONNREFUSED)") as string,
    });
  });

  test("that answers nothing is left when the signal says so", async () => {
    const stop = new AbortController();
    const endpoint = await serve(() => {
      stop.abort(new Error("enough"));
      return new Promise<never>(() => {});
    });
    const aws = { ...kmsOf(server).options.aws, endpoint };
    await expect(openSigner("awskms:///alias/orders", { aws }, stop.signal)).rejects.toThrow("enough");
  });
});

describe("AWS KMS as LocalStack has it", () => {
  needs("localstack");
  let server: S3Server;
  beforeAll(async () => {
    server = await startS3("localstack", "kms");
  });
  afterAll(() => server?.stop());

  test("signs with P-256, so that the signature counts", async () => {
    const { options, createKey } = kmsOf(server);
    const { arn } = await createKey(p256);
    const signer = await openSigner(`awskms:///${arn}`, options, never);
    const [envelope] = readEnvelopes(Buffer.from(await signEnvelope(payload, signer, never)));
    expect(envelope?.hint).toBe(signer.public.hint);
  });
});

/** No emulator of Cloud KMS was found: this stands for Google's endpoint, and proves the shape of requests only. */
describe("Google's Cloud KMS, by the shape of its requests", () => {
  const name = "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1";

  interface Request {
    readonly method: string;
    readonly path: string;
    readonly authorization: string;
    readonly body: unknown;
  }

  /** A key in Google's place; `damage` changes its answers, and `token` those of its token service. */
  async function kms(
    kind: "ecdsa-p256" | "ed25519" | "secp256k1",
    damage: (
      answer: Record<string, unknown>,
      path: string,
    ) => { status: number; body: object } | undefined = () => undefined,
  ) {
    const key = keyOf(kind);
    const requests: Request[] = [];
    const endpoint = await serve((request, body) => {
      const path = request.url ?? "";
      if (path === "/token") {
        const granted = { access_token: "a-token", token_type: "Bearer", expires_in: 3_600 };
        return {
          status: 200,
          body: { ...granted, issued_token_type: "urn:ietf:params:oauth:token-type:access_token" },
        };
      }
      const asked: unknown = body === "" ? undefined : JSON.parse(body);
      requests.push({
        method: request.method ?? "",
        path,
        authorization: String(request.headers.authorization),
        body: asked,
      });
      const answer = path.endsWith(":asymmetricSign") ? signed(key, asked) : published(key, kind);
      return damage(answer, path) ?? { status: 200, body: answer };
    });
    // a workload's identity: what Google's library exchanges for a token, at an address that the file names
    await using folder = await tempFolder();
    const [subject, credentials] = [join(folder.path, "subject"), join(folder.path, "credentials.json")];
    await writeFile(subject, "a-subject");
    await writeFile(
      credentials,
      JSON.stringify({
        type: "external_account",
        audience: "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
        token_url: `${endpoint}/token`,
        credential_source: { file: subject },
      }),
    );
    const before = process.env["GOOGLE_APPLICATION_CREDENTIALS"];
    process.env["GOOGLE_APPLICATION_CREDENTIALS"] = credentials;
    try {
      const signer = await openSigner(`gcpkms://${name}`, { gcp: { endpoint } }, never);
      return { signer, requests, signature: await signer.sign(payload, never) };
    } finally {
      if (before === undefined) delete process.env["GOOGLE_APPLICATION_CREDENTIALS"];
      else process.env["GOOGLE_APPLICATION_CREDENTIALS"] = before;
    }
  }

  test.for(["ecdsa-p256", "ed25519"] as const)(
    "asks for the public key, then for a signature with %s",
    async (kind) => {
      const { signer, requests, signature } = await kms(kind);
      expect(signer.public.kind).toBe(kind);
      expect(isSignedBy(payload, signature, signer.public)).toBe(true);
      const digest = createHash("sha256").update(payload).digest();
      const body =
        kind === "ed25519"
          ? { data: payload.toString("base64"), dataCrc32c: String(crc32c(payload)) }
          : { digest: { sha256: digest.toString("base64") }, digestCrc32c: String(crc32c(digest)) };
      const authorization = "Bearer a-token";
      expect(requests).toEqual([
        { method: "GET", path: `/v1/${name}/publicKey`, authorization, body: undefined },
        { method: "POST", path: `/v1/${name}:asymmetricSign`, authorization, body },
      ]);
    },
  );

  test("does not use an answer that was damaged, is of another key or of a request that was", async () => {
    const damages: readonly ((answer: Record<string, unknown>) => void)[] = [
      (answer) => void (answer["pemCrc32c"] &&= "1"),
      (answer) => void (answer["signatureCrc32c"] &&= "1"),
      (answer) => void (answer["verifiedDigestCrc32c"] &&= false),
      (answer) => void (answer["name"] = name.replace(/1$/, "2")),
      (answer) => void delete answer["signatureCrc32c"],
    ];
    for (const damage of damages) {
      const asked = kms("ecdsa-p256", (answer, path) => {
        if (path.endsWith(":asymmetricSign") || "pemCrc32c" in answer) damage(answer);
        return undefined;
      });
      await expect(asked).rejects.toMatchObject({
        code: "KEY_STORE",
        message: expect.stringContaining("damaged") as string,
      });
    }
  });

  test("tries again what may be cured, and no more than that", async () => {
    let failures = 2;
    const cured = await kms("ecdsa-p256", () => (failures-- > 0 ? { status: 503, body: {} } : undefined));
    expect(cured.requests).toHaveLength(4);
    const denied: string[] = [];
    const asked = kms("ecdsa-p256", (_, path) => {
      denied.push(path);
      return { status: 403, body: { error: { status: "PERMISSION_DENIED", message: "hunter2@p.iam" } } };
    });
    await expect(asked).rejects.toMatchObject({
      code: "KEY_STORE",
      message: expect.not.stringContaining("hunter2") as string,
      hint: expect.stringContaining("roles/cloudkms.signerVerifier") as string,
      fields: { status: 403, reason: "PERMISSION_DENIED" },
    });
    expect(denied).toHaveLength(1);
  });

  test("takes no key of another kind, nor one whose algorithm is another", async () => {
    await expect(kms("secp256k1")).rejects.toMatchObject({ code: "KEY_ALG" });
    const asked = kms("ecdsa-p256", (answer) => void (answer["algorithm"] = "EC_SIGN_P384_SHA384"));
    await expect(asked).rejects.toMatchObject({ code: "KEY_ALG" });
  });

  test("computes CRC-32C as RFC 3720 does", () => {
    expect(crc32c(Buffer.from("123456789"))).toBe(0xe3069283);
    expect(crc32c(Buffer.alloc(32))).toBe(0x8a9136aa);
    expect(crc32c(Buffer.alloc(0))).toBe(0);
  });

  function keyOf(kind: "ecdsa-p256" | "ed25519" | "secp256k1"): {
    privateKey: KeyObject;
    publicKey: KeyObject;
  } {
    if (kind === "ed25519") return generateKeyPairSync("ed25519");
    return generateKeyPairSync("ec", { namedCurve: kind === "secp256k1" ? "secp256k1" : "prime256v1" });
  }

  function published({ publicKey }: { publicKey: KeyObject }, kind: string): Record<string, unknown> {
    const pem = String(publicKey.export({ type: "spki", format: "pem" }));
    const algorithm = kind === "ed25519" ? "EC_SIGN_ED25519" : "EC_SIGN_P256_SHA256";
    return { name, pem, algorithm, pemCrc32c: String(crc32c(Buffer.from(pem))), protectionLevel: "HSM" };
  }

  /** Google signs the digest that it is sent; node:crypto signs a message only, and of this one the digest is known. */
  function signed({ privateKey }: { privateKey: KeyObject }, asked: unknown): Record<string, unknown> {
    const isDigest = typeof asked === "object" && asked !== null && "digest" in asked;
    const signature = sign(isDigest ? "sha256" : null, payload, privateKey);
    return {
      name,
      signature: signature.toString("base64"),
      signatureCrc32c: String(crc32c(signature)),
      [isDigest ? "verifiedDigestCrc32c" : "verifiedDataCrc32c"]: true,
      protectionLevel: "HSM",
    };
  }
});

/** A server on loopback that answers in JSON, gone when the test ends. */
async function serve(
  answer: (
    request: IncomingMessage,
    body: string,
  ) => { status: number; body: object } | Promise<{ status: number; body: object }>,
): Promise<string> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      void Promise.resolve(answer(request, Buffer.concat(chunks).toString())).then(({ status, body }) => {
        response.writeHead(status, { "content-type": "application/x-amz-json-1.1" });
        response.end(JSON.stringify(body));
      });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  return `http://127.0.0.1:${address.port}`;
}
