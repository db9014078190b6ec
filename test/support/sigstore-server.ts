import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { buffer } from "node:stream/consumers";

import * as v from "valibot";

import type { TestCertificate, TestSigstore } from "./sigstore.ts";

/** Files that make cosign sign by an instance of the test's own. */
export interface SigstoreFiles {
  /** flags of `cosign attest-blob`, in its terms */
  readonly flags: readonly string[];
  readonly trustedRoot: string;
}

/**
 * The instance's Fulcio and Rekor over HTTP, as far as cosign speaks to them, and files in `folder` that lead it there.
 * Everybody who asks is given `certificate`: who asks is what the real Fulcio finds out from a token.
 */
export async function serveSigstore(
  instance: TestSigstore,
  certificate: TestCertificate,
  folder: string,
): Promise<SigstoreFiles & AsyncDisposable> {
  const answers: Readonly<Record<string, (body: unknown) => Promise<Answer>>> = {
    "/api/v2/signingCert": async (body) => {
      const { content } = v.parse(certificateRequest, body).publicKeyRequest.publicKey;
      const issued = await instance.certify(fromPem(content), certificate);
      const authorities = instance.trustedRoot.certificateAuthorities.flatMap(
        (one) => v.parse(authority, one).certChain.certificates,
      );
      const certificates = [issued, ...authorities.map(({ rawBytes }) => Buffer.from(rawBytes, "base64"))];
      return {
        status: 200,
        body: { signedCertificateEmbeddedSct: { chain: { certificates: certificates.map(toPem) } } },
      };
    },
    "/api/v1/log/entries": async (body) => {
      const { envelope, verifiers } = v.parse(entryRequest, body).spec.proposedContent;
      const { payload, signatures } = v.parse(dsse, JSON.parse(envelope));
      const logged = await instance.log(
        Buffer.from(payload, "base64"),
        Buffer.from(signatures[0].sig, "base64"),
        Buffer.from(verifiers[0], "base64"),
      );
      const [id = ""] = Object.keys(logged);
      return { status: 201, body: logged, headers: { location: `/api/v1/log/entries/${id}`, etag: id } };
    },
  };
  const answer = async (request: IncomingMessage): Promise<Answer> => {
    const known = answers[request.url ?? ""];
    if (known === undefined) return { status: 404, body: {} };
    return known(JSON.parse((await buffer(request)).toString()));
  };
  const server = createServer((request, response) => {
    void answer(request).then(
      ({ status, body, headers }) => {
        response.writeHead(status, { "content-type": "application/json", ...headers });
        response.end(JSON.stringify(body));
      },
      (error: unknown) => {
        response.writeHead(400);
        response.end(String(error));
      },
    );
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const files = await writeFiles(instance, url, folder);
  return {
    ...files,
    [Symbol.asyncDispose]: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

interface Answer {
  readonly status: number;
  readonly body: object;
  readonly headers?: Readonly<Record<string, string>>;
}

async function writeFiles(instance: TestSigstore, url: string, folder: string): Promise<SigstoreFiles> {
  const service = [
    { url, majorApiVersion: 1, validFor: { start: "2020-01-01T00:00:00Z" }, operator: "test" },
  ];
  const config = {
    mediaType: "application/vnd.dev.sigstore.signingconfig.v0.2+json",
    caUrls: service,
    oidcUrls: service,
    rekorTlogUrls: service,
    rekorTlogConfig: { selector: "ANY" },
  };
  const claims = { iss: url, sub: "test", aud: "sigstore", exp: Math.floor(Date.now() / 1000) + 3_600 };
  const token = [{ alg: "ES256" }, claims, {}].map((part) =>
    Buffer.from(JSON.stringify(part)).toString("base64url"),
  );
  const write = async (name: string, text: string): Promise<string> => {
    await writeFile(join(folder, name), text);
    return join(folder, name);
  };
  const trustedRoot = await write("trusted_root.json", JSON.stringify(instance.trustedRoot));
  const signingConfig = await write("signing_config.json", JSON.stringify(config));
  const identityToken = await write("identity_token", token.join("."));
  const flags = [
    "--signing-config",
    signingConfig,
    "--trusted-root",
    trustedRoot,
    "--identity-token",
    identityToken,
  ];
  return { trustedRoot, flags };
}

const certificateRequest = v.object({
  publicKeyRequest: v.object({ publicKey: v.object({ content: v.string() }) }),
});
const authority = v.object({
  certChain: v.object({ certificates: v.array(v.object({ rawBytes: v.string() })) }),
});
const entryRequest = v.object({
  spec: v.object({
    proposedContent: v.object({ envelope: v.string(), verifiers: v.tuple([v.string()]) }),
  }),
});
const dsse = v.object({ payload: v.string(), signatures: v.tuple([v.object({ sig: v.string() })]) });

function fromPem(pem: string): Buffer<ArrayBuffer> {
  return Buffer.from(pem.replaceAll(/-----[^-]+-----|\s/g, ""), "base64");
}

function toPem(bytes: Buffer): string {
  return `-----BEGIN CERTIFICATE-----\n${bytes.toString("base64")}\n-----END CERTIFICATE-----\n`;
}
