import { createPublicKey, sign } from "node:crypto";
import { isDeepStrictEqual } from "node:util";

import { Hono } from "hono";

import { parsePolicy } from "../../src/http/auth/policy.ts";
import { pinnedKeys } from "../../src/http/auth/key-set.ts";
import { createTokenVerifier } from "../../src/http/auth/token.ts";
import { runSchema } from "../../src/cli/remote-run.ts";
import { readAnswer } from "../../src/cli/remote-server.ts";
import { readBody } from "../../src/http/body.ts";
import type { HttpEnv, HttpParts } from "../../src/http/context.ts";
import { parseStrictJson } from "../../src/http/json.ts";
import { httpLimits } from "../../src/http/limits.ts";
import { parseIsoDuration, runRequestSchema } from "../../src/http/run-request.ts";
import { seededKey } from "./subject-release.ts";
import type { Subject } from "./subject.ts";

const now = new Date("2026-11-21T00:00:00Z");
const seconds = now.getTime() / 1000;
const audience = "https://migrate.test";
const key = seededKey("an issuer");
const jwk = { ...createPublicKey(key).export({ format: "jwk" }), kid: "key-1", alg: "EdDSA", use: "sig" };

const claims = {
  iss: "https://issuer.test",
  sub: "repo:acme/orders",
  aud: audience,
  iat: seconds - 10,
  exp: seconds + 300,
  jti: "0f6c2e5a",
  repository_id: "456789",
  environment: "production",
  email_verified: true,
};

function token(header: object, payload: object): string {
  const input = [header, payload]
    .map((part) => Buffer.from(JSON.stringify(part)).toString("base64url"))
    .join(".");
  return `${input}.${sign(null, Buffer.from(input), key).toString("base64url")}`;
}

const header = { alg: "EdDSA", kid: "key-1", typ: "JWT" };
const tokens = [
  token(header, claims),
  token(header, { ...claims, jti: undefined }),
  token({ alg: "EdDSA" }, claims),
];
const signed = new Set(tokens.map((text) => text.split(".")[1]));

const verifier = createTokenVerifier({
  audience,
  issuers: [
    {
      issuer: {
        name: "ci",
        issuer: claims.iss,
        keys: { kind: "file", path: "jwks.json" },
        algorithms: ["EdDSA"],
        maxTokenAgeMs: 600_000,
        typ: null,
      },
      keys: pinnedKeys(JSON.stringify({ keys: [jwk] }), "jwks.json"),
    },
  ],
  maxTokenChars: httpLimits.tokenChars,
  now: () => now,
});

const policy = {
  schema: "urn:lockkeeper:policy:v1",
  audience,
  issuers: {
    github: {
      issuer: "https://token.actions.githubusercontent.com",
      jwksUri: "https://token.actions.githubusercontent.com/.well-known/jwks",
      algs: ["RS256"],
      maxTokenAge: "10m",
    },
    cluster: { issuer: "https://cluster.test", jwksFile: "cluster.json", algs: ["ES256"] },
  },
  rules: [
    {
      id: "orders-prod",
      issuer: "github",
      match: {
        repository_id: "456789",
        environment: "production",
        event_name: ["push", "workflow_dispatch"],
      },
      allow: { targets: ["orders-prod"], actions: ["plan", "apply", "status"] },
      require: { digest: true },
      limit: { perHour: 20 },
    },
    {
      id: "pods",
      issuer: "cluster",
      match: { sub: "system:serviceaccount:orders:migrator", "/kubernetes.io/serviceaccount/uid": "0f6c" },
      allow: { targets: ["*"], actions: ["status"] },
    },
  ],
};

const requests = [
  { target: "orders-prod", action: "apply", release: { digest: `sha256:${"0a".repeat(32)}` } },
  { target: "orders-prod", action: "plan", labels: { commit: "3f2a9b1c" } },
  { target: "orders-prod", action: "apply", to: "42.1", deadline: "PT10M", onFailure: "stop", allow: [] },
];

const app = new Hono<HttpEnv>().post("/", async (c) => {
  const { value } = await readBody(c, { limits: httpLimits } as HttpParts, runRequestSchema);
  return c.json(value);
});
app.onError((error) => {
  throw error;
});

/** What reads what callers and servers send. */
export const httpSubjects: readonly Subject[] = [
  {
    name: "http-json",
    corpus: [...requests, policy, claims].map(json),
    read(input) {
      try {
        const text = input.toString();
        return isDeepStrictEqual(parseStrictJson(text, 16), JSON.parse(text))
          ? undefined
          : "another value than JSON.parse";
      } catch (error) {
        // its documented error, which each of its callers names anew
        if (error instanceof SyntaxError && !error.message.includes("JSON at")) return undefined;
        throw error;
      }
    },
  },
  {
    name: "token",
    corpus: tokens.map((text) => Buffer.from(text)),
    words: ["eyJhbGciOiJub25lIn0", "none", "HS256", "jku", "x5u", "jwk", "crit", "b64", "."],
    async read(input) {
      const text = input.toString("latin1");
      await verifier.verify(text);
      return signed.has(text.split(".")[1]) ? undefined : "claims that nobody signed";
    },
  },
  {
    name: "policy",
    corpus: [json(policy), Buffer.from(JSON.stringify(policy, null, 2))],
    words: [
      "*",
      "unlock",
      "down",
      "adopt",
      "jwksUri",
      "http://169.254.169.254/",
      "https://user@host/",
      "PS256",
    ],
    read(input) {
      const { rules, issuers } = parsePolicy(input.toString(), new Set(["orders-prod", "orders-staging"]));
      const names = new Set(issuers.map(({ name }) => name));
      return rules.every(({ from }) => from.kind !== "issuer" || names.has(from.issuer))
        ? undefined
        : "a rule of an issuer that is not there";
    },
  },
  {
    name: "run-request",
    corpus: requests.map(json),
    words: ["bucket", "url", "sql", "databaseUrl", "unsigned", "source", "limits", "to", "labels"],
    async read(input) {
      const body = new Uint8Array(input);
      const response = await app.request("/", {
        method: "POST",
        body,
        headers: { "content-type": "application/json" },
      });
      const value = Object(await response.json()) as object;
      const known = ["target", "action", "release", "to", "plan", "deadline", "labels", "onFailure", "allow"];
      const strange = Object.keys(value).find((name) => !known.includes(name));
      return strange === undefined ? undefined : `the field ${strange}`;
    },
  },
  {
    name: "server-answer",
    corpus: [
      json({
        id: "orders.01JD",
        target: "orders",
        status: "succeeded",
        done: true,
        outcome: "applied",
        release: null,
        from: null,
        to: "3",
        progress: { applied: 3, total: 3, current: null },
        error: null,
      }),
      json({
        type: "about:blank",
        title: "refused",
        status: 409,
        code: "LEASE_HELD",
        detail: "held",
        hint: "wait",
      }),
    ],
    words: ["constructor", "toString", "INTERNAL"],
    read(input) {
      const answer = readAnswer(
        new Response(null, { status: 409 }),
        input.toString(),
        "https://migrate.test/v1",
        runSchema,
      );
      return answer.kind === "value" ? "a run from a refusal" : undefined;
    },
  },
  {
    name: "iso-duration",
    corpus: ["PT30S", "PT1H30M", "P1D"].map((text) => Buffer.from(text)),
    read(input) {
      const ms = parseIsoDuration(input.toString());
      return ms === undefined || (Number.isSafeInteger(ms) && ms >= 0) ? undefined : "no length of time";
    },
  },
];

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}
