import { createHash, createHmac, generateKeyPairSync, sign } from "node:crypto";
import { Webhook } from "standardwebhooks";
import { beforeAll, describe, expect, test } from "vitest";
import { parseHookSecret } from "../../src/http/auth/hook-secret.ts";
import { createWorld, openBarrier, orders, users, type Answer, type World } from "../http/world.ts";
import { recordOutbound } from "../support/outbound.ts";
import { runsOf } from "../support/runs-of.ts";
import { base64url, createIssuer, signRaw, testAudience, type TestIssuer } from "../support/token.ts";

const apply = { target: "orders", action: "apply" } as const;
const secret = "0123456789abcdef0123456789abcdef";
const standardSecret = `whsec_${Buffer.from(secret).toString("base64")}`;

/** For callers who are refused, and so leave nothing behind: one server with an issuer of RSA, one of ECDSA, and another one. */
let world: World;
let rsa: TestIssuer;
let other: TestIssuer;
beforeAll(async () => {
  [rsa, other] = await Promise.all([
    createIssuer({ url: "https://rsa.test", algorithm: "RS256", kid: "rsa" }),
    createIssuer({ url: "https://other.test", kid: "other" }),
  ]);
  world = await createWorld({
    callers: {
      issuers: {
        rsa: { issuer: rsa.url, jwksFile: "jwks.json", algs: ["RS256"] },
        both: { issuer: `${rsa.url}/2`, jwksFile: "jwks.json", algs: ["RS256", "PS256"] },
        other: { issuer: other.url, jwksFile: "jwks.json", algs: ["ES256"] },
      },
      keys: { rsa: rsa.jwks, both: rsa.jwks, other: other.jwks },
      hooks: {
        flux: { kind: "hmac", header: "X-Signature", prefix: "sha256=", secretFile: "hmac" },
        sender: { kind: "standard-webhooks", secretFile: "standard" },
      },
      secrets: { hmac: secret, standard: standardSecret },
      rules: [
        ...["rsa", "both", "other"].map((issuer) => ({
          id: issuer,
          issuer,
          match: { role: "admin" },
          allow: { targets: ["orders"], actions: ["apply"] },
        })),
        ...["flux", "sender"].map((hook) => ({
          id: hook,
          hook,
          allow: { targets: ["orders"], actions: ["apply"] },
        })),
      ],
    },
  });
});

/** The claims of an honest caller of an issuer. */
function claimsOf(issuer: TestIssuer): Readonly<Record<string, unknown>> {
  const seconds = Math.floor(Date.now() / 1000);
  return { iss: issuer.url, sub: "ci", aud: testAudience, iat: seconds, exp: seconds + 300, role: "admin" };
}

/** Nothing is said but 401, nothing is recorded as a run, nobody is asked for anything. */
async function expectStranger(answer: Answer, hosts: readonly string[] = []): Promise<void> {
  expect([answer.status, answer.body.code]).toEqual([401, "UNAUTHENTICATED"]);
  expect(Object.keys(answer.body).toSorted()).toEqual(
    ["code", "detail", "hint", "instance", "retryable", "status", "title", "type"].toSorted(),
  );
  expect(answer.body.detail).toMatch(/^the (bearer token is missing or|delivery) was not accepted$/);
  expect(await runsOf(world.database)).toBe(0);
  expect(hosts).toEqual([]);
}

async function expectRefusedToken(token: string): Promise<void> {
  const { hosts } = recordOutbound();
  const answer = await world.send("POST", "/v1/runs", { body: apply, token });
  await expectStranger(answer, hosts);
  if (token.length > 40) expect(answer.text).not.toContain(token.slice(0, 40));
}

/** The reason that only the log has. */
function reason(): unknown {
  return world.log.findLast(({ event }) => event === "http.request")?.fields["reason"];
}

describe("attack 41: the token chooses its own verification", () => {
  test("41 an honest token of each issuer is known, so that what follows is refused for what it is", async () => {
    for (const issuer of [world.issuer, rsa, other]) {
      const token = await issuer.token({ role: "admin" });
      const answer = await world.send("GET", "/v1/runs/orders.01ARZ3NDEKTSV4RRFFQ69G5FAV", { token });
      expect([403, 404]).toContain(answer.status);
    }
  });

  test.for(["none", "None", "NONE"])("41 a token with alg %s is refused", async (alg) => {
    const input = `${base64url(JSON.stringify({ alg }))}.${base64url(JSON.stringify(claimsOf(rsa)))}`;
    await expectRefusedToken(`${input}.`);
    await expectRefusedToken(`${input}.AAAA`);
  });

  test("41 HS256 with the RSA public key as its secret is refused", async () => {
    const header = base64url(JSON.stringify({ alg: "HS256", kid: rsa.kid }));
    const input = `${header}.${base64url(JSON.stringify(claimsOf(rsa)))}`;
    const { publicKey } = rsa;
    for (const key of [
      publicKey.export({ type: "spki", format: "pem" }),
      publicKey.export({ type: "spki", format: "der" }),
    ]) {
      await expectRefusedToken(`${input}.${createHmac("sha256", key).update(input).digest("base64url")}`);
    }
  });

  test("41 PS256 with a key that is for RS256 is refused, also where the issuer may use both", async () => {
    await expectRefusedToken(await rsa.token({ role: "admin" }, { algorithm: "PS256" }));
    await expectRefusedToken(await rsa.token({ role: "admin", iss: `${rsa.url}/2` }, { algorithm: "PS256" }));
  });

  test("41 a key that the token brings along, by jwk, jku, x5u or x5c, is not used or fetched", async () => {
    const evil = await createIssuer({ url: world.issuer.url });
    const [jwk] = (JSON.parse(evil.jwks) as { keys: unknown[] }).keys;
    for (const header of [
      { jwk },
      { jku: "https://evil.test/jwks" },
      { x5u: "https://evil.test/certificate.pem" },
      { x5c: ["AAAA"] },
      { jwk, kid: undefined },
    ])
      await expectRefusedToken(
        await world.issuer.token({ role: "admin" }, { header, privateKey: evil.privateKey }),
      );
  });

  test("41 crit and b64 are refused although the signature is right", async () => {
    const payload = JSON.stringify(claimsOf(world.issuer));
    for (const more of [
      { crit: ["exp"], exp: 1 },
      { crit: ["b64"], b64: false },
      { b64: false },
      { crit: [] },
    ]) {
      const header = JSON.stringify({ alg: "ES256", kid: world.issuer.kid, ...more });
      await expectRefusedToken(signRaw(header, payload, world.issuer.privateKey));
      expect(reason()).toBe("crit and b64 are not taken");
    }
  });

  test("41 a signature by another key than the issuer's is refused, and so is an RSA key of 1024 bits", async () => {
    const evil = await createIssuer();
    await expectRefusedToken(await world.issuer.token({ role: "admin" }, { privateKey: evil.privateKey }));
    const weak = generateKeyPairSync("rsa", { modulusLength: 1024 });
    const input = [{ alg: "RS256", kid: rsa.kid }, claimsOf(rsa)]
      .map((part) => base64url(JSON.stringify(part)))
      .join(".");
    await expectRefusedToken(
      `${input}.${sign("sha256", Buffer.from(input), weak.privateKey).toString("base64url")}`,
    );
  });
});

describe("attack 42: the token's times", () => {
  test.for<[string, (seconds: number) => Readonly<Record<string, unknown>>]>([
    ["expired", (at) => ({ exp: at - 31 })],
    ["without exp", () => ({ exp: undefined })],
    ["without iat", () => ({ iat: undefined })],
    ["not valid yet", (at) => ({ nbf: at + 600 })],
    ["issued long ago with an expiry far away", (at) => ({ iat: at - 700, exp: at + 86_400 })],
    ["issued in the future", (at) => ({ iat: at + 600, exp: at + 900 })],
    ["with exp as text", (at) => ({ exp: String(at + 300) })],
    ["with iat as text", (at) => ({ iat: String(at) })],
    ["with exp as a list", (at) => ({ exp: [at + 300] })],
  ])("42 a token %s is refused", async ([, change]) => {
    const claims = change(Math.floor(Date.now() / 1000));
    await expectRefusedToken(await world.issuer.token({ role: "admin", ...claims }));
  });
});

describe("attack 43: a token for or of somebody else", () => {
  test.for([
    ["for another audience", { aud: "https://other.test" }],
    ["for an audience that only begins like ours", { aud: `${testAudience}/x` }],
    ["for an audience that ours begins with", { aud: testAudience.slice(0, -1) }],
    ["for two audiences, one of them ours", { aud: [testAudience, "https://other.test"] }],
    ["for no audience", { aud: undefined }],
    ["for an empty list of audiences", { aud: [] }],
    ["of an issuer with a slash more", { iss: "https://issuer.test/" }],
    ["of an issuer in capitals", { iss: "https://ISSUER.test" }],
    ["of an issuer as a list", { iss: ["https://issuer.test"] }],
    ["of nobody", { iss: undefined }],
    ["without a subject", { sub: undefined }],
    ["with an empty subject", { sub: "" }],
    ["with a number as subject", { sub: 7 }],
    ["with a NUL in its subject", { sub: "a\u0000" }],
    ["with an empty jti", { jti: "" }],
    ["with a number as jti", { jti: 7 }],
  ] as const)("43 a token %s is refused", async ([, claims]) => {
    await expectRefusedToken(await world.issuer.token({ role: "admin", ...claims }));
  });

  test("43 an issuer's key cannot sign for another issuer, although both are configured", async () => {
    const { privateKey, kid } = world.issuer;
    await expectRefusedToken(await other.token({ role: "admin" }, { privateKey }));
    await expectRefusedToken(await other.token({ role: "admin" }, { privateKey, header: { kid } }));
    await expectRefusedToken(
      await other.token({ role: "admin" }, { privateKey, header: { kid: undefined } }),
    );
  });

  test("43 a kid that walks paths finds no key", async () => {
    for (const kid of ["../../../../dev/null", "key-1/../key-1", "key-1\u0000", "constructor", "__proto__"])
      await expectRefusedToken(await world.issuer.token({ role: "admin" }, { header: { kid } }));
  });

  test("43 a token anywhere but in Authorization is none", async () => {
    const token = await world.token();
    for (const headers of [
      { cookie: `token=${token}` },
      { "x-forwarded-authorization": `Bearer ${token}` },
      { "proxy-authorization": `Bearer ${token}` },
      { authorization: `Basic ${token}` },
    ])
      await expectStranger(await world.send("POST", "/v1/runs", { body: apply, token: null, headers }));
    await expectStranger(
      await world.send("POST", `/v1/runs?access_token=${token}`, { body: apply, token: null }),
    );
  });
});

describe("attack 44: claims that two readers read differently", () => {
  const header = (): string => JSON.stringify({ alg: "ES256", kid: world.issuer.kid });
  const rewritten = (from: string, to: string): string =>
    signRaw(header(), JSON.stringify(claimsOf(world.issuer)).replace(from, to), world.issuer.privateKey);

  test("44 a claim that is there twice is refused, although the signature is right", async () => {
    await expectRefusedToken(rewritten('"sub":"ci"', '"sub":"evil","sub":"ci"'));
    expect(reason()).toBe('the field "sub" is there twice');
    await expectRefusedToken(rewritten('"sub":"ci"', '"sub":"ci","s\\u0075b":"evil"'));
    expect(reason()).toBe('the field "sub" is there twice');
    await expectRefusedToken(rewritten('"role":"admin"', '"role":"viewer","role":"admin"'));
  });

  test.for(["__proto__", "constructor", "prototype"])(
    "44 a claim named %s, which every object inherits, is refused",
    async (name) => {
      await expectRefusedToken(rewritten("{", `{"${name}":{"role":"admin"},`));
    },
  );

  test.for(["[]", "null", '"x"', "{", "{}{}", `{"x":${"[".repeat(2000)}${"]".repeat(2000)}}`])(
    "44 claims that are no plain object are refused: %#",
    async (payload) => {
      await expectRefusedToken(signRaw(header(), payload, world.issuer.privateKey));
    },
  );

  test("44 a claim of another type, in a list, in an object, or missing matches no rule", async () => {
    for (const role of [["admin"], { admin: true }, true, 1, null, undefined, "Admin", "admin ", "*"]) {
      const answer = await world.send("POST", "/v1/runs", {
        body: apply,
        token: await world.issuer.token({ role }),
      });
      expect([answer.status, answer.body.code]).toEqual([403, "NOT_ALLOWED"]);
      expect(await runsOf(world.database)).toBe(0);
    }
  });
});

describe("attack 45: one proof, shown again", () => {
  test.for([" ", "\n", "\t", "=", "%20"])(
    "45 a token with %j inside or behind it is refused",
    async (space) => {
      const token = await world.token();
      for (const text of [`${token.slice(0, 60)}${space}${token.slice(60)}`, `${token}${space}x`]) {
        // a line break cannot even be sent in a header
        if (space === "\n") expect(() => new Headers({ authorization: `Bearer ${text}` })).toThrow(TypeError);
        else await expectRefusedToken(text);
      }
    },
  );

  test("45 spare bits in the last character of the claims are refused", async () => {
    // one byte more or less moves the padding: at least one of three lengths has spare bits
    for (const extra of ["", "x", "xx"]) {
      const [header, payload = "", signature] = (await world.token({ extra })).split(".");
      if (payload.length % 4 === 0) continue;
      const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
      const next = alphabet[alphabet.indexOf(payload.at(-1) ?? "") + 1] ?? "";
      await expectRefusedToken(`${header}.${payload.slice(0, -1)}${next}.${signature}`);
      expect(reason()).toBe("not canonical base64url");
    }
  });

  test("45 a token that is too long is refused before it is read", async () => {
    await expectRefusedToken(await world.token({ padding: "x".repeat(8192) }));
    expect(reason()).toBe("the token is too long");
  });

  test("45 a token is good for one body: the same answers with the same run, another is refused", async () => {
    const site = await createWorld();
    await site.bucket.publish({ ...users, ...orders });
    const token = await site.token();
    const first = await site.send("POST", "/v1/runs", { body: apply, token });
    const again = await site.send("POST", "/v1/runs", { body: apply, token });
    expect(again.body).toEqual(first.body);
    const back = { target: "orders", action: "rollback", to: "0" };
    const replay = await site.send("POST", "/v1/runs", { body: back, token });
    expect([replay.status, replay.body.code]).toEqual([409, "REPLAY"]);
    expect(await runsOf(site.database)).toBe(1);
    await expect(site.database.query("select * from orders")).resolves.toEqual([]);

    // nor for what is no run
    const { id } = first.body;
    const unlock = { run: id, reason: "replayed" };
    for (const [path, body] of [
      [`/v1/runs/${id}/cancel`, {}],
      ["/v1/targets/orders/unlock", unlock],
    ] as const) {
      const answer = await site.send("POST", path, { body, token });
      expect([answer.status, answer.body.code]).toEqual([409, "REPLAY"]);
    }
  });

  test("45 a token that joined a run which another one began is good for that alone", async () => {
    const site = await createWorld();
    const barrier = await openBarrier(site);
    const digest = await site.bucket.publish(barrier.migration);
    const body = { ...apply, release: { digest } };
    const headers = { prefer: "respond-async" };
    const first = await site.send("POST", "/v1/runs", { body, headers });
    await barrier.reached();
    const token = await site.token();
    for (let turn = 0; turn < 2; turn++) {
      const joined = await site.send("POST", "/v1/runs", { body, headers, token });
      expect([joined.status, joined.body.id]).toEqual([202, first.body.id]);
    }
    const back = { target: "orders", action: "rollback", to: "0" };
    for (const [path, other] of [
      ["/v1/runs", back],
      [`/v1/runs/${first.body.id}/cancel`, {}],
    ] as const) {
      const replay = await site.send("POST", path, { body: other, token });
      expect([replay.status, replay.body.code]).toEqual([409, "REPLAY"]);
    }
    await barrier.release();
    await site.app.active.drained();
    expect(await runsOf(site.database)).toBe(1);
  });

  test("45 a token that canceled or unlocked is good for that alone", async () => {
    const site = await createWorld();
    await site.bucket.publish(users);
    const { id } = (await site.send("POST", "/v1/runs", { body: apply })).body;
    const token = await site.token();
    const cancel = (body: object): Promise<Answer> =>
      site.send("POST", `/v1/runs/${id}/cancel`, { body, token });
    expect((await cancel({ reason: "one" })).body.code).toBe("RUN_ENDED");
    expect((await cancel({ reason: "one" })).body.code).toBe("RUN_ENDED");
    expect((await cancel({ reason: "two" })).body.code).toBe("REPLAY");
    const unlock = { run: id, reason: "one" };
    const answers = [
      await site.send("POST", "/v1/targets/orders/unlock", { body: unlock, token }),
      await site.send("POST", "/v1/runs", { body: apply, token }),
    ];
    expect(answers.map(({ body }) => body.code)).toEqual(["REPLAY", "REPLAY"]);
    expect(await runsOf(site.database)).toBe(1);
  });

  test.for<[string, boolean]>([
    ["by its jti", true],
    ["without a jti, by its claims", false],
  ])("45 a token with another signature over the same claims is the same token: %s", async ([, hasJti]) => {
    const site = await createWorld();
    await site.bucket.publish(users);
    const iat = Math.floor(Date.now() / 1000);
    const claims = { jti: hasJti ? "j-1" : undefined, iat, exp: iat + 300 };
    // ECDSA signs with a fresh nonce, and of each signature (r, s) there is another one (r, n - s)
    const [one, two] = [await site.token(claims), await site.token(claims)];
    const three = otherSignature(one);
    expect(new Set([one, two, three]).size).toBe(3);
    const first = await site.send("POST", "/v1/runs", { body: apply, token: one });
    expect(first.status).toBe(200);
    for (const token of [two, three]) {
      expect((await site.send("POST", "/v1/runs", { body: apply, token })).body.id).toBe(first.body.id);
      const back = { target: "orders", action: "rollback", to: "0" };
      const replay = await site.send("POST", "/v1/runs", { body: back, token });
      expect([replay.status, replay.body.code]).toEqual([409, "REPLAY"]);
    }
    expect(await runsOf(site.database)).toBe(1);
  });

  test("45 a webhook of Standard Webhooks is good once, under its id, for five minutes", async () => {
    const site = await createWorld({
      callers: {
        hooks: { sender: { kind: "standard-webhooks", secretFile: "standard" } },
        secrets: { standard: standardSecret },
        rules: [{ id: "sender", hook: "sender", allow: { targets: ["orders"], actions: ["apply"] } }],
      },
    });
    await site.bucket.publish(users);
    const post = (id: string, body: string, at = new Date()): Promise<Answer> =>
      site.send("POST", "/v1/hooks/sender/orders", { token: null, ...standard(id, body, at) });
    const first = await post("msg_1", "{}");
    // 202, or 200 where the run was quicker than its answer
    expect([200, 202]).toContain(first.status);
    // a sender that repeats signs anew, with the time of the repetition
    expect((await post("msg_1", "{}", new Date(Date.now() - 60_000))).body.id).toBe(first.body.id);
    const changed = await post("msg_1", '{"a":1}');
    expect([changed.status, changed.body.code]).toEqual([409, "REPLAY"]);
    for (const minutes of [-6, 15])
      expect((await post("msg_2", "{}", new Date(Date.now() + minutes * 60_000))).status).toBe(401);
    expect(await runsOf(site.database)).toBe(1);
  });

  test.for<[string, (sent: Sent) => Sent]>([
    ["with another id", (sent) => withHeader(sent, "webhook-id", "msg_2")],
    [
      "with another time",
      (sent) => withHeader(sent, "webhook-timestamp", String(Math.floor(Date.now() / 1000) + 7)),
    ],
    [
      "with words behind its time",
      (sent) => withHeader(sent, "webhook-timestamp", `${sent.headers["webhook-timestamp"]}abc`),
    ],
    ["with another body", (sent) => ({ ...sent, text: '{"a":2}' })],
    ["without an id", (sent) => withHeader(sent, "webhook-id", "")],
    ["without a signature", (sent) => withHeader(sent, "webhook-signature", "")],
    [
      "with a signature of another version",
      (sent) =>
        withHeader(
          sent,
          "webhook-signature",
          (sent.headers["webhook-signature"] ?? "").replace("v1,", "v1a,"),
        ),
    ],
    ["with an id that ends in another one's dot", () => standard("msg.1", '{"a":1}')],
    ["with its body compressed, as it says", (sent) => withHeader(sent, "content-encoding", "gzip")],
  ])("45 a webhook %s is refused", async ([, change]) => {
    const sent = change(standard("msg_1", '{"a":1}'));
    await expectStranger(await world.send("POST", "/v1/hooks/sender/orders", { token: null, ...sent }));
  });

  test.for<[string, Readonly<Record<string, string>>]>([
    ["no signature", {}],
    ["another body's", { "x-signature": `sha256=${hmac("another")}` }],
    [
      "another secret's",
      { "x-signature": `sha256=${createHmac("sha256", "x".repeat(32)).update("body").digest("hex")}` },
    ],
    ["one without its prefix", { "x-signature": hmac("body") }],
    ["one that is cut", { "x-signature": `sha256=${hmac("body").slice(0, -2)}` }],
    ["one of SHA-1", { "x-signature": `sha1=${createHmac("sha1", secret).update("body").digest("hex")}` }],
    [
      "a digest without a key",
      { "x-signature": `sha256=${createHash("sha256").update("body").digest("hex")}` },
    ],
    ["two of them", { "x-signature": `sha256=${hmac("other")}, sha256=${hmac("body")}` }],
    ["another header's", { "x-hub-signature-256": `sha256=${hmac("body")}` }],
  ])("45 a webhook with a wrong HMAC is refused: %s", async ([, headers]) => {
    await expectStranger(
      await world.send("POST", "/v1/hooks/flux/orders", { token: null, text: "body", headers }),
    );
  });

  test("45 a hook that is not there is refused as one whose signature is wrong", async () => {
    const headers = { "x-signature": `sha256=${hmac("body")}` };
    for (const hook of ["argo", "constructor", "__proto__", "Flux"])
      await expectStranger(
        await world.send("POST", `/v1/hooks/${hook}/orders`, { token: null, text: "body", headers }),
      );
  });

  test("45 a bearer token opens no webhook", async () => {
    await expectStranger(await world.send("POST", "/v1/hooks/flux/orders", { body: {} }));
    await expectStranger(await world.send("POST", "/v1/hooks/flux", { body: apply }));
  });

  test.for([
    ["hmac", "x"],
    ["hmac", ""],
    ["hmac", "x".repeat(23)],
    ["hmac", ` ${"x".repeat(30)}`],
    ["standard-webhooks", "whsec_eA=="],
    ["standard-webhooks", `whsec_${Buffer.alloc(23).toString("base64")}`],
    ["standard-webhooks", "x".repeat(64).concat("!")],
  ] as const)("45 a secret of one byte, or of fewer than 24, does not load: %s %j", ([kind, text]) => {
    expect(() => parseHookSecret(kind, text, "the secret")).toThrow(
      expect.objectContaining({ code: "CONFIG" }),
    );
  });
});

interface Sent {
  readonly text: string;
  readonly headers: Readonly<Record<string, string>>;
}

/** A delivery as the reference implementation of Standard Webhooks signs it. */
function standard(id: string, text: string, at = new Date()): Sent {
  return {
    text,
    headers: {
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1000)),
      "webhook-signature": new Webhook(standardSecret).sign(id, at, text),
    },
  };
}

function withHeader(sent: Sent, name: string, value: string): Sent {
  return { ...sent, headers: { ...sent.headers, [name]: value } };
}

function hmac(body: string): string {
  return createHmac("sha256", secret).update(body).digest("hex");
}

/** The other valid ES256 signature over the same bytes: s is replaced by n - s. */
function otherSignature(token: string): string {
  const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
  const [header, payload, signature = ""] = token.split(".");
  const bytes = Buffer.from(signature, "base64url");
  const s = order - BigInt(`0x${bytes.subarray(32).toString("hex")}`);
  const turned = Buffer.concat([bytes.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, "0"), "hex")]);
  return `${header}.${payload}.${turned.toString("base64url")}`;
}
