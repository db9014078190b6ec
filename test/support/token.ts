import { generateKeyPairSync, randomUUID, sign, type KeyObject } from "node:crypto";
import { exportJWK, SignJWT, type JWK } from "jose";

/** An OIDC issuer of a test's own: real keys, real signatures, no network. */
export interface TestIssuer {
  readonly url: string;
  readonly kid: string;
  readonly publicKey: KeyObject;
  readonly privateKey: KeyObject;
  /** text of a JWKS file with its public key */
  readonly jwks: string;
  /** Text of a policy file beside `jwks.json`: its subject `ci` may apply and look at a target, or `*`. */
  policy(target: string): string;
  /** A token with this issuer's usual claims, overridden or removed (`undefined`) by `claims`. */
  token(claims?: Readonly<Record<string, unknown>>, options?: TokenOptions): Promise<string>;
}

/** What differs from an honest token. */
export interface TokenOptions {
  /** when it is issued; now by default */
  readonly now?: Date;
  readonly header?: Readonly<Record<string, unknown>>;
  /** signs with another key than the issuer's */
  readonly privateKey?: KeyObject;
  readonly algorithm?: string;
}

/** The audience of all test tokens, unless a test says otherwise. */
export const testAudience = "https://migrate.test";

/** Makes an issuer. `ES256` by default: RSA keys take long to make. */
export async function createIssuer(
  options: {
    readonly url?: string;
    readonly algorithm?: "ES256" | "RS256";
    readonly kid?: string;
    readonly rsaBits?: number;
  } = {},
): Promise<TestIssuer> {
  const { url = "https://issuer.test", algorithm = "ES256", kid = "key-1", rsaBits = 2048 } = options;
  const { publicKey, privateKey } =
    algorithm === "ES256"
      ? generateKeyPairSync("ec", { namedCurve: "P-256" })
      : generateKeyPairSync("rsa", { modulusLength: rsaBits });
  const jwk: JWK = { ...(await exportJWK(publicKey)), kid, alg: algorithm, use: "sig" };
  return {
    url,
    kid,
    publicKey,
    privateKey,
    jwks: JSON.stringify({ keys: [jwk] }),
    policy: (target) =>
      JSON.stringify({
        schema: "urn:lockkeeper:policy:v1",
        audience: testAudience,
        issuers: { ci: { issuer: url, jwksFile: "jwks.json", algs: [algorithm] } },
        rules: [
          {
            id: "deploy",
            issuer: "ci",
            match: { sub: "ci" },
            allow: { targets: [target], actions: ["apply", "status"] },
          },
        ],
      }),
    async token(
      claims = {},
      { now = new Date(), header = {}, privateKey: otherKey, algorithm: otherAlgorithm } = {},
    ) {
      const seconds = Math.floor(now.getTime() / 1000);
      const all = {
        iss: url,
        sub: "ci",
        aud: testAudience,
        iat: seconds,
        exp: seconds + 300,
        jti: randomUUID(),
        ...claims,
      };
      const given = Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
      return new SignJWT(given)
        .setProtectedHeader({ alg: otherAlgorithm ?? algorithm, kid, typ: "JWT", ...header })
        .sign(otherKey ?? privateKey);
    },
  };
}

/** A compact JWT over exactly these texts, signed with ES256: for what no honest library would write. */
export function signRaw(header: string, payload: string, key: KeyObject): string {
  const input = `${base64url(header)}.${base64url(payload)}`;
  const signature = sign("sha256", Buffer.from(input), { key, dsaEncoding: "ieee-p1363" });
  return `${input}.${signature.toString("base64url")}`;
}

/** UTF-8 text as a part of a compact JWT. */
export function base64url(text: string): string {
  return Buffer.from(text).toString("base64url");
}
