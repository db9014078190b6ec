import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { RunnerError } from "../../../src/error.ts";
import type { Issuer } from "../../../src/http/auth/issuer.ts";
import { fetchCapped, fetchedKeys, pinnedKeys } from "../../../src/http/auth/key-set.ts";
import { createTokenVerifier, type TokenVerifier } from "../../../src/http/auth/token.ts";
import { createIssuer, testAudience, type TestIssuer } from "../../support/token.ts";

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
    // 5 minutes, 30 s of tolerance, and 15 minutes for a database whose clock is ahead
    expect(principal.expiresAt).toEqual(new Date((seconds + 330 + 900) * 1000));
  });

  test("is remembered as long as its age allows, whatever its issuer says of its end", async () => {
    const issuer = await createIssuer();
    const verifier = verifierFor(entryOf(issuer));
    for (const exp of [1e308, 1e12, seconds + 601])
      expect((await verifier.verify(await issuer.token({ exp }, { now }))).expiresAt).toEqual(
        new Date((seconds + 630 + 900) * 1000),
      );
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

describe("a token's times", () => {
  test("may be 30 s off, as clocks are", async () => {
    const issuer = await createIssuer();
    const verifier = verifierFor(entryOf(issuer));
    await expect(
      verifier.verify(await issuer.token({ exp: seconds - 29, iat: seconds - 300 }, { now })),
    ).resolves.toBeDefined();
    await expect(verifier.verify(await issuer.token({ iat: seconds + 29 }, { now }))).resolves.toBeDefined();
    for (const claims of [
      { exp: seconds - 31 },
      { nbf: seconds + 31 },
      { iat: seconds + 31 },
      { iat: seconds - 631 },
    ])
      await refusal(verifier, await issuer.token(claims, { now }));
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

  test("are given up after 5 s, also when their server goes on sending", async () => {
    const issuer = await createIssuer();
    const server = createServer((_, response) => {
      const drip = setInterval(() => response.write(" "), 50);
      response.on("close", () => clearInterval(drip));
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const verifier = verifierFor({
      ...entryOf(issuer),
      keys: fetchedKeys(`http://127.0.0.1:${port}/jwks`),
    });
    await refusal(verifier, await issuer.token({}, { now }));
  });

  test("that cannot be had let nobody in, and the log hears why", async () => {
    const issuer = await createIssuer();
    const url = await serve(() => ({ status: 500, body: Buffer.alloc(0) }));
    const verifier = verifierFor({ ...entryOf(issuer), keys: fetchedKeys(`${url}/jwks`) });
    expect(await refusal(verifier, await issuer.token({}, { now }))).toBe("the key set answered 500");
  });

  test.for([
    ["an error", 500, ""],
    ["no JSON", 200, "<html>"],
    ["no key set", 200, '{"keys":{}}'],
  ] as const)(
    "whose address answers with %s are not asked for by every token that somebody makes up",
    async ([, status, text]) => {
      const issuer = await createIssuer();
      let asked = 0;
      const url = await serve(() => {
        asked++;
        return { status, body: Buffer.from(text) };
      });
      const verifier = verifierFor({ ...entryOf(issuer), keys: fetchedKeys(`${url}/jwks`) });
      for (let turn = 0; turn < 20; turn++) await refusal(verifier, await issuer.token({}, { now }));
      // one; more only where 20 tokens take longer than the 5 s
      expect(asked).toBeLessThan(10);
    },
  );

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
