import { createHmac, hash } from "node:crypto";

import { readRecord } from "../../src/audit/read.ts";
import { createHookVerifier } from "../../src/http/auth/hook-verifier.ts";
import { iamPrincipal } from "../../src/http/auth/iam.ts";
import { readEnvelopes } from "../../src/release/envelope.ts";
import { readForeignBundles } from "../../src/release/review/foreign-bundle.ts";
import { parseKeyReference } from "../../src/release/trust/key-store/reference.ts";
import { releaseVectors } from "./subject-release.ts";
import type { Subject } from "./subject.ts";

const now = new Date("2026-11-21T00:00:00Z");
const secret = Buffer.from(hash("sha256", "lockkeeper fuzz a hook"), "hex");
const verifier = createHookVerifier({
  hooks: [
    {
      hook: {
        kind: "hmac",
        name: "github",
        header: "x-hub-signature-256",
        prefix: "sha256=",
        encoding: "hex",
        pingHeader: "x-github-event",
        secretFiles: [],
      },
      keys: [secret],
    },
    { hook: { kind: "standard-webhooks", name: "standard", secretFiles: [] }, keys: [secret] },
  ],
  sns: { verify: () => Promise.reject(new Error("no topic here")) },
  now: () => now,
});

/** A delivery as text: headers, an empty line, the body. */
const deliveries = ['{"action":"released"}', "{}"].flatMap((body) => {
  const id = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W";
  const at = now.getTime() / 1000;
  const mac = createHmac("sha256", secret);
  return [
    `x-hub-signature-256: sha256=${createHmac("sha256", secret).update(body).digest("hex")}\n\n${body}`,
    `webhook-id: ${id}\nwebhook-timestamp: ${at}\nwebhook-signature: v1,${mac.update(`${id}.${at}.${body}`).digest("base64")}\n\n${body}`,
  ];
});
const authentic = new Set(deliveries.map((text) => text.slice(text.indexOf("\n\n") + 2)));

const iamEvent = {
  version: "2.0",
  requestContext: {
    requestId: "e1f6a2c1-0000-4000-8000-000000000000",
    authorizer: {
      iam: {
        accountId: "123456789012",
        callerId: "AROAEXAMPLEEXAMPLE12:session",
        userArn: "arn:aws:sts::123456789012:assumed-role/deployer/session",
        principalOrgId: "o-abc",
      },
    },
  },
};

/** What reads webhooks, gateways' events, other tools' bundles, names of keys and the audit log. */
export const callerSubjects: readonly Subject[] = [
  {
    name: "webhook",
    corpus: deliveries.map((text) => Buffer.from(text)),
    words: ["v1,", "v1a,", "sha256=", "webhook-id: ", "x-github-event: ping\n", "content-encoding: gzip\n"],
    async read(input) {
      const end = Math.max(0, input.indexOf("\n\n"));
      const headers = new Map(
        input
          .subarray(0, end)
          .toString("latin1")
          .split("\n")
          .map((line) => [line.split(": ", 1)[0] ?? "", line.slice(line.indexOf(": ") + 2)] as const),
      );
      const body = input.subarray(end + 2);
      const name = headers.has("webhook-id") ? "standard" : "github";
      const answer = await verifier.verify(
        name,
        (header) => headers.get(header),
        () => Promise.resolve(body),
      );
      if (answer.kind !== "delivery") return answer.kind === "ping" ? undefined : "a word of SNS";
      return authentic.has(body.toString()) ? undefined : "a body that nobody signed";
    },
  },
  {
    name: "iam-event",
    corpus: [Buffer.from(JSON.stringify(iamEvent))],
    words: ["arn:aws:iam::999999999999:user/admin", "root", "assumed-role", "identity", "test-invoke-stage"],
    read(input) {
      let event: unknown;
      try {
        event = JSON.parse(input.toString());
      } catch {
        return undefined; // Lambda itself parses it
      }
      const principal = iamPrincipal([{ name: "iam", frontend: "lambda-iam" }], event, now);
      if (principal === undefined) return undefined;
      return /^[0-9]{12}$/.test(String(principal.claims["account"]))
        ? undefined
        : "a caller without an account";
    },
  },
  {
    name: "foreign-bundle",
    corpus: [
      ...releaseVectors,
      ...releaseVectors.map((line) => Buffer.from(line.toString().replaceAll(",", ",\n"))),
    ],
    read(input) {
      for (const line of readForeignBundles(input, "the bundle"))
        readEnvelopes(Buffer.from(line), "the bundle");
      return undefined;
    },
  },
  {
    name: "key-reference",
    corpus: [
      "awskms:///alias/release",
      "awskms://localhost:4566/1234abcd-12ab-34cd-56ef-1234567890ab",
      "awskms:///arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
      "gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
      "release.key",
    ].map((text) => Buffer.from(text)),
    words: ["awskms://", "gcpkms://", "@", "..", "?", "#", "169.254.169.254", "\\"],
    read(input) {
      const reference = parseKeyReference(input.toString());
      if (reference.kind !== "gcp") return undefined;
      return /^projects\/[^?#\s]+$/.test(reference.name) ? undefined : "a name that is more than a name";
    },
  },
  {
    name: "audit-record",
    corpus: [
      Buffer.from(
        '{"schema":"urn:lockkeeper:audit:v1","kind":"run","release":{"epoch":1,"version":2,"digest":"sha256:00"}}',
      ),
    ],
    read(input) {
      readRecord({ text: input.toString() });
      return undefined;
    },
  },
];
