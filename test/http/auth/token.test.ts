import { createHmac, generateKeyPairSync } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import type { Issuer } from "../../../src/http/auth/issuer.ts";
import { fetchCapped, fetchedKeys, pinnedKeys } from "../../../src/http/auth/key-set.ts";
import { createTokenVerifier, type TokenVerifier } from "../../../src/http/auth/token.ts";
import { base64url, createIssuer, signRaw, testAudience, type TestIssuer } from "../../support/token.ts";

const now = new Date("2026-11-21T06:00:00Z");
const seconds = now.getTime() / 1000;

function entryOf(
  issuer: TestIssuer,
  algorithms: readonly string[] = ["ES256"],
): { issuer: Issuer; keys: ReturnType<typeof pinnedKeys> } {
  return {
    issuer: {
      name: "ci",
      issuer: issuer.url,
      keys: { kind: "file", path: "jwks.json" },
      algorithms,
      maxTokenAgeMs: 600_000,
      typ: null,
    },
    keys: pinnedKeys(issuer.jwks, "jwks.json"),
  };
}

function verifierFor(...issuers: readonly ReturnType<typeof entryOf>[]): TokenVerifier {
  return createTokenVerifier({ audience: testAudience, issuers, maxTokenChars: 8192, now: () => now });
}

/** The one refusal that callers see, and the reason that only the log gets. */
async function refusal(verifier: TokenVerifier, token: string): Promise<string> {
  const error = await verifier.verify(token).then(
    () => new Error("the token was accepted"),
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof RunnerError)) throw error;
  expect(error).toMatchObject({
    code: "UNAUTHENTICATED",
    message: "the bearer token is missing or was not accepted",
  });
  expect(JSON.stringify([error.message, error.hint, error.fields])).not.toContain(token.slice(0, 20));
  return error.cause instanceof Error ? error.cause.message : "";
}

describe("a token that is accepted", () => {
  test("gives issuer, subject, claims and single-use id", async () => {
    const issuer = await createIssuer();
    const principal = await verifierFor(entryOf(issuer)).verify(
      await issuer.token({ jti: "j-1", repository_id: "1" }, { now }),
    );
    expect(principal).toMatchObject({
      issuer: issuer.url,
      issuerName: "ci",
      subject: "ci",
      jti: "j-1",
      claims: { repository_id: "1" },
    });
    expect(principal.expiresAt).toEqual(new Date((seconds + 330) * 1000));
  });

  test("may name its one audience in a list", async () => {
    const issuer = await createIssuer();
    await expect(
      verifierFor(entryOf(issuer)).verify(await issuer.token({ aud: [testAudience] }, { now })),
    ).resolves.toMatchObject({ subject: "ci" });
  });

  test("may carry no kid where the issuer has one key", async () => {
    const issuer = await createIssuer();
    await expect(
      verifierFor(entryOf(issuer)).verify(await issuer.token({}, { now, header: { kid: undefined } })),
    ).resolves.toBeDefined();
  });

  test("without jti is known by its claims, not by its signature or text", async () => {
    const issuer = await createIssuer();
    const verifier = verifierFor(entryOf(issuer));
    // ECDSA signs with a fresh nonce: two texts, one set of claims
    const first = await issuer.token({ jti: undefined }, { now });
    const second = await issuer.token({ jti: undefined }, { now });
    expect(second).not.toBe(first);
    const [one, two] = [await verifier.verify(first), await verifier.verify(second)];
    expect(one.jti).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(two.jti).toBe(one.jti);
  });

  test("with RS256 is taken from an issuer that uses RS256", async () => {
    const issuer = await createIssuer({ algorithm: "RS256" });
    await expect(
      verifierFor(entryOf(issuer, ["RS256"])).verify(await issuer.token({}, { now })),
    ).resolves.toBeDefined();
  });
});

describe("a token's type", () => {
  test.for([
    ["at+jwt", "at+jwt", true],
    ["at+jwt", "application/at+jwt", true],
    ["at+jwt", "AT+JWT", true],
    ["application/at+jwt", "at+jwt", true],
    ["at+jwt", "JWT", false],
    ["at+jwt", undefined, false],
    ["at+jwt", "x/at+jwt", false],
    ["at+jwt", "at+jwt2", false],
    [null, "JWT", true],
    [null, undefined, true],
  ] as const)("%s in the policy, %s in the token", async ([wanted, typ, isTaken]) => {
    const issuer = await createIssuer();
    const { keys, issuer: entry } = entryOf(issuer);
    const verifier = verifierFor({ keys, issuer: { ...entry, typ: wanted } });
    const token = await issuer.token({}, { now, header: { typ } });
    if (isTaken) await expect(verifier.verify(token)).resolves.toMatchObject({ subject: "ci" });
    else expect(await refusal(verifier, token)).toContain("typ");
  });
});

describe("attack 41: the token chooses its own verification", () => {
  test("alg none is refused, in any spelling", async () => {
    const issuer = await createIssuer();
    const verifier = verifierFor(entryOf(issuer));
    const payload = base64url(
      JSON.stringify({ iss: issuer.url, sub: "ci", aud: testAudience, iat: seconds, exp: seconds + 300 }),
    );
    for (const alg of ["none", "None", "NONE"]) {
      await refusal(verifier, `${base64url(JSON.stringify({ alg }))}.${payload}.`);
      await refusal(verifier, `${base64url(JSON.stringify({ alg }))}.${payload}.AAAA`);
    }
  });

  test("HS256 with the RSA public key as its secret is refused", async () => {
    const issuer = await createIssuer({ algorithm: "RS256" });
    const secret = issuer.publicKey.export({ type: "spki", format: "pem" });
    const input = `${base64url(JSON.stringify({ alg: "HS256", kid: issuer.kid }))}.${base64url(JSON.stringify({ iss: issuer.url, sub: "ci", aud: testAudience, iat: seconds, exp: seconds + 300 }))}`;
    const token = `${input}.${createHmac("sha256", secret).update(input).digest("base64url")}`;
    await refusal(verifierFor(entryOf(issuer, ["RS256"])), token);
  });

  test("PS256 with a key that is for RS256 is refused", async () => {
    const issuer = await createIssuer({ algorithm: "RS256" });
    await refusal(
      verifierFor(entryOf(issuer, ["RS256"])),
      await issuer.token({}, { now, algorithm: "PS256" }),
    );
    await refusal(
      verifierFor(entryOf(issuer, ["RS256", "PS256"])),
      await issuer.token({}, { now, algorithm: "PS256" }),
    );
  });

  test("a key that the token brings along, by jwk, jku or x5u, is not used", async () => {
    const issuer = await createIssuer();
    const evil = await createIssuer({ url: issuer.url });
    const jwk: unknown = JSON.parse(evil.jwks).keys[0];
    for (const header of [
      { jwk },
      { jku: "https://evil.test/jwks" },
      { x5u: "https://evil.test/cert.pem" },
      { jwk, kid: undefined },
    ]) {
      await refusal(
        verifierFor(entryOf(issuer)),
        await issuer.token({}, { now, header, privateKey: evil.privateKey }),
      );
    }
  });

  test("crit and b64 are refused although the signature is right", async () => {
    const issuer = await createIssuer();
    const verifier = verifierFor(entryOf(issuer));
    const payload = JSON.stringify({
      iss: issuer.url,
      sub: "ci",
      aud: testAudience,
      iat: seconds,
      exp: seconds + 300,
    });
    for (const header of [
      { crit: ["exp"], exp: 1 },
      { crit: ["b64"], b64: false },
      { b64: false },
      { crit: [] },
    ]) {
      await refusal(
        verifier,
        signRaw(JSON.stringify({ alg: "ES256", kid: issuer.kid, ...header }), payload, issuer.privateKey),
      );
    }
  });

  test("an RSA key of 1024 bits is refused", async () => {
    const issuer = await createIssuer({ algorithm: "RS256" });
    const weak = generateKeyPairSync("rsa", { modulusLength: 1024 });
    const short = {
      ...entryOf(issuer, ["RS256"]),
      keys: pinnedKeys(
        JSON.stringify({ keys: [{ ...weak.publicKey.export({ format: "jwk" }), kid: "key-1" }] }),
        "jwks.json",
      ),
    };
    const input = `${base64url(JSON.stringify({ alg: "RS256", kid: "key-1" }))}.${base64url(JSON.stringify({ iss: issuer.url, sub: "ci", aud: testAudience, iat: seconds, exp: seconds + 300 }))}`;
    const { sign } = await import("node:crypto");
    await refusal(
      verifierFor(short),
      `${input}.${sign("sha256", Buffer.from(input), weak.privateKey).toString("base64url")}`,
    );
  });
});

describe("attack 42: the token's times", () => {
  test.for([
    ["expired", { exp: seconds - 31 }],
    ["without exp", { exp: undefined }],
    ["without iat", { iat: undefined }],
    ["not valid yet", { nbf: seconds + 31 }],
    ["issued long ago with an expiry far away", { iat: seconds - 631, exp: seconds + 86_400 }],
    ["issued in the future", { iat: seconds + 31 }],
    ["with exp as text", { exp: String(seconds + 300) }],
    ["with iat as text", { iat: String(seconds) }],
  ] as const)("%s is refused", async ([, claims]) => {
    const issuer = await createIssuer();
    await refusal(verifierFor(entryOf(issuer)), await issuer.token(claims, { now }));
  });

  test("clocks may differ by 30 s", async () => {
    const issuer = await createIssuer();
    const verifier = verifierFor(entryOf(issuer));
    await expect(
      verifier.verify(await issuer.token({ exp: seconds - 29, iat: seconds - 300 }, { now })),
    ).resolves.toBeDefined();
    await expect(verifier.verify(await issuer.token({ iat: seconds + 29 }, { now }))).resolves.toBeDefined();
  });
});

describe("attack 43: a token for or of somebody else", () => {
  test.for([
    ["another audience", { aud: "https://other.test" }],
    ["an audience that only begins like ours", { aud: `${testAudience}/x` }],
    ["an audience that ours begins with", { aud: testAudience.slice(0, -1) }],
    ["two audiences, one of them ours", { aud: [testAudience, "https://other.test"] }],
    ["no audience", { aud: undefined }],
    ["an empty list of audiences", { aud: [] }],
    ["an issuer with a slash more", { iss: "https://issuer.test/" }],
    ["an issuer in capitals", { iss: "https://ISSUER.test" }],
    ["an issuer as a list", { iss: ["https://issuer.test"] }],
    ["no issuer", { iss: undefined }],
    ["no subject", { sub: undefined }],
    ["an empty subject", { sub: "" }],
    ["a subject that is a number", { sub: 7 }],
    ["a subject with a NUL", { sub: "a\u0000" }],
    ["an empty jti", { jti: "" }],
    ["a jti that is a number", { jti: 7 }],
  ] as const)("%s is refused", async ([, claims]) => {
    const issuer = await createIssuer();
    await refusal(verifierFor(entryOf(issuer)), await issuer.token(claims, { now }));
  });

  test("an issuer's key cannot sign for another issuer, although both are configured", async () => {
    const [a, b] = [
      await createIssuer({ url: "https://a.test", kid: "a" }),
      await createIssuer({ url: "https://b.test", kid: "b" }),
    ];
    const verifier = verifierFor(entryOf(a), entryOf(b));
    await refusal(verifier, await b.token({}, { now, privateKey: a.privateKey }));
    await refusal(verifier, await b.token({}, { now, privateKey: a.privateKey, header: { kid: "a" } }));
    await expect(verifier.verify(await b.token({}, { now }))).resolves.toMatchObject({
      issuer: "https://b.test",
    });
  });

  test("a kid that walks paths finds no key", async () => {
    const issuer = await createIssuer();
    for (const kid of ["../../../../dev/null", "key-1/../key-1", "key-1\u0000", "constructor", "__proto__"]) {
      await refusal(verifierFor(entryOf(issuer)), await issuer.token({}, { now, header: { kid } }));
    }
  });
});

describe("attack 44: claims that two readers read differently", () => {
  test("a claim that is there twice is refused, although the signature is right", async () => {
    const issuer = await createIssuer();
    const payload = `{"iss":"${issuer.url}","sub":"evil","sub":"ci","aud":"${testAudience}","iat":${seconds},"exp":${seconds + 300}}`;
    const header = JSON.stringify({ alg: "ES256", kid: issuer.kid });
    expect(
      await refusal(verifierFor(entryOf(issuer)), signRaw(header, payload, issuer.privateKey)),
    ).toContain("twice");
    const escaped = payload.replace('"sub":"ci"', '"s\\u0075b":"ci"');
    expect(
      await refusal(verifierFor(entryOf(issuer)), signRaw(header, escaped, issuer.privateKey)),
    ).toContain("twice");
  });

  test("claims named like what every object inherits are refused", async () => {
    const issuer = await createIssuer();
    const header = JSON.stringify({ alg: "ES256", kid: issuer.kid });
    for (const name of ["__proto__", "constructor", "prototype"]) {
      const payload = `{"iss":"${issuer.url}","sub":"ci","aud":"${testAudience}","iat":${seconds},"exp":${seconds + 300},"${name}":{"environment":"production"}}`;
      await refusal(verifierFor(entryOf(issuer)), signRaw(header, payload, issuer.privateKey));
    }
  });

  test("a payload that is no object, not UTF-8 or very deep is refused", async () => {
    const issuer = await createIssuer();
    const header = JSON.stringify({ alg: "ES256", kid: issuer.kid });
    for (const payload of [
      "[]",
      "null",
      '"x"',
      "{",
      `{"iss":"${issuer.url}","x":${"[".repeat(2000)}${"]".repeat(2000)}}`,
    ]) {
      await refusal(verifierFor(entryOf(issuer)), signRaw(header, payload, issuer.privateKey));
    }
  });
});

describe("attack 45: one token in two spellings", () => {
  test("white space inside a token's parts is refused", async () => {
    const issuer = await createIssuer();
    const token = await issuer.token({}, { now });
    const verifier = verifierFor(entryOf(issuer));
    for (const space of [" ", "\n", "\t", "="]) {
      await refusal(verifier, `${token.slice(0, 60)}${space}${token.slice(60)}`);
      await refusal(verifier, `${token}${space}`);
    }
  });

  test("spare bits in the last character of the claims are refused", async () => {
    const issuer = await createIssuer();
    // one byte more or less moves the padding: at least one of three lengths has spare bits
    for (const extra of ["", "x", "xx"]) {
      const [header, payload = "", signature] = (await issuer.token({ extra }, { now })).split(".");
      if (payload.length % 4 === 0) continue;
      const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
      const other = alphabet[alphabet.indexOf(payload.at(-1) ?? "") + 1] ?? "";
      expect(
        await refusal(verifierFor(entryOf(issuer)), `${header}.${payload.slice(0, -1)}${other}.${signature}`),
      ).toContain("canonical");
    }
  });

  test("a token that is too long is refused before it is read", async () => {
    const issuer = await createIssuer();
    expect(
      await refusal(verifierFor(entryOf(issuer)), await issuer.token({ padding: "x".repeat(8192) }, { now })),
    ).toContain("too long");
  });
});

describe("pinned keys", () => {
  test("private keys, shared secrets and empty sets are refused", async () => {
    const issuer = await createIssuer();
    const privateJwk = issuer.privateKey.export({ format: "jwk" });
    for (const text of [
      JSON.stringify({ keys: [privateJwk] }),
      '{"keys":[{"kty":"oct","k":"AAAA"}]}',
      '{"keys":[]}',
      "{}",
      "nonsense",
    ]) {
      expect(() => pinnedKeys(text, "jwks.json")).toThrow(expect.objectContaining({ code: "CONFIG" }));
    }
  });
});

describe("keys from an issuer's address", () => {
  async function serve(
    answer: (path: string) => { status: number; headers?: Record<string, string>; body: Buffer },
  ): Promise<string> {
    const server: Server = createServer((request, response) => {
      const { status, headers, body } = answer(request.url ?? "");
      response.writeHead(status, headers).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    return `http://127.0.0.1:${port}`;
  }

  test("a redirect is not followed", async () => {
    const seen: string[] = [];
    const url = await serve((path) => {
      seen.push(path);
      return { status: 302, headers: { location: "/elsewhere" }, body: Buffer.alloc(0) };
    });
    await expect(fetchCapped(`${url}/jwks`, {})).rejects.toThrow("answered 302");
    expect(seen).toEqual(["/jwks"]);
  });

  test("more than 256 KiB is given up", async () => {
    const url = await serve(() => ({ status: 200, body: Buffer.alloc(256 * 1024 + 1, 0x20) }));
    await expect(fetchCapped(`${url}/jwks`, {})).rejects.toThrow("larger than");
  });

  test("verify tokens, are asked for once, and once more for a key that is not among them", async () => {
    const issuer = await createIssuer();
    let asked = 0;
    const url = await serve(() => {
      asked++;
      return { status: 200, body: Buffer.from(issuer.jwks) };
    });
    const verifier = verifierFor({ ...entryOf(issuer), keys: fetchedKeys(`${url}/jwks`) });
    await Promise.all([1, 2, 3].map(async () => verifier.verify(await issuer.token({}, { now }))));
    expect(asked).toBe(1);
    // within the cool-down of 30 s nobody can make the server fetch again and again
    for (const kid of ["other", "another", "third"])
      await refusal(verifier, await issuer.token({}, { now, header: { kid } }));
    expect(asked).toBeLessThanOrEqual(2);
  });

  test("that cannot be had let nobody in, and the log hears why", async () => {
    const issuer = await createIssuer();
    const url = await serve(() => ({ status: 500, body: Buffer.alloc(0) }));
    const verifier = verifierFor({ ...entryOf(issuer), keys: fetchedKeys(`${url}/jwks`) });
    expect(await refusal(verifier, await issuer.token({}, { now }))).toBe("the key set answered 500");
  });

  test("of an issuer that is not in the policy are not asked for", async () => {
    const issuer = await createIssuer();
    let asked = 0;
    const url = await serve(() => {
      asked++;
      return { status: 200, body: Buffer.from(issuer.jwks) };
    });
    const verifier = verifierFor({ ...entryOf(issuer), keys: fetchedKeys(`${url}/jwks`) });
    await refusal(verifier, await issuer.token({ iss: url }, { now }));
    expect(asked).toBe(0);
  });

  test("a key set within the ceiling is read whole", async () => {
    const { jwks } = await createIssuer();
    const url = await serve(() => ({ status: 200, body: Buffer.from(jwks) }));
    await expect((await fetchCapped(`${url}/jwks`, {})).text()).resolves.toBe(jwks);
  });
});
