import { createHash } from "node:crypto";
import { jwtVerify, type JWTVerifyGetKey } from "jose";
import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import { parseStrictJson } from "../json.ts";
import type { Issuer } from "./issuer.ts";
import { plain, type TokenPrincipal } from "./principal.ts";

/** Checks bearer tokens. */
export interface TokenVerifier {
  /**
   * @throws RunnerError `UNAUTHENTICATED` — always the same one; the reason is its cause, for the log only
   */
  verify(token: string): Promise<TokenPrincipal>;
}

/** An issuer with the keys its tokens are checked with; key sets are never merged across issuers. */
export interface IssuerKeys {
  readonly issuer: Issuer;
  readonly keys: JWTVerifyGetKey;
}

const clockToleranceSeconds = 30;
/** how much longer a token's id is remembered than it is accepted: the database sweeps by a clock of its own */
const rememberSeconds = 15 * 60;
const compactToken = /^([A-Za-z0-9_-]{1,4096})\.([A-Za-z0-9_-]{1,8192})\.([A-Za-z0-9_-]{1,4096})$/;

const claimsSchema = v.looseObject({
  iss: v.string(),
  sub: v.pipe(plain, v.maxLength(1024)),
  aud: v.union([v.string(), v.pipe(v.array(v.string()), v.length(1))]),
  exp: v.number(),
  iat: v.number(),
  jti: v.optional(v.pipe(plain, v.maxLength(512))),
});

/** The verifier of a policy's issuers; tokens of anybody else are refused before a key is looked for. */
export function createTokenVerifier(options: {
  readonly audience: string;
  readonly issuers: readonly IssuerKeys[];
  readonly maxTokenChars: number;
  now(): Date;
}): TokenVerifier {
  const byIssuer = new Map(options.issuers.map((entry) => [entry.issuer.issuer, entry]));

  async function check(token: string): Promise<TokenPrincipal> {
    if (token.length > options.maxTokenChars) throw new Error("the token is too long");
    const [, header = "", payload = ""] = compactToken.exec(token) ?? [];
    if (payload === "") throw new Error("not a compact JWT");
    const protectedHeader = readObject(header);
    if (Object.hasOwn(protectedHeader, "crit") || Object.hasOwn(protectedHeader, "b64"))
      throw new Error("crit and b64 are not taken");

    // Not trusted yet: `iss` only chooses among the configured entries, and only that entry's keys can confirm it.
    const claims = readObject(payload);
    const entry = typeof claims["iss"] === "string" ? byIssuer.get(claims["iss"]) : undefined;
    if (entry === undefined) throw new Error("the issuer is not in the policy");

    await jwtVerify(token, entry.keys, {
      issuer: entry.issuer.issuer,
      audience: options.audience,
      algorithms: [...entry.issuer.algorithms],
      requiredClaims: ["iss", "sub", "aud", "exp", "iat"],
      maxTokenAge: entry.issuer.maxTokenAgeMs / 1000,
      clockTolerance: clockToleranceSeconds,
      currentDate: options.now(),
      // compared as RFC 7515 says: in any case, with or without "application/"
      ...(entry.issuer.typ === null ? {} : { typ: entry.issuer.typ }),
    });
    // `claims` are of the very bytes that were just verified, read more strictly than the library does
    const known = v.safeParse(claimsSchema, claims);
    if (!known.success)
      throw new Error("a registered claim has a wrong type, or there is more than one audience");
    return {
      issuer: known.output.iss,
      issuerName: entry.issuer.name,
      subject: known.output.sub,
      claims,
      jti:
        known.output.jti ??
        `sha256:${createHash("sha256").update(Buffer.from(payload, "base64url")).digest("hex")}`,
      expiresAt: new Date((lastSecond(known.output, entry.issuer) + rememberSeconds) * 1000),
    };
  }

  return {
    async verify(token) {
      try {
        return await check(token);
      } catch (cause) {
        // Also what no library names, such as a TypeError for an RSA key that is too short.
        throw new RunnerError("UNAUTHENTICATED", "the bearer token is missing or was not accepted", {
          hint: "send a fresh token of a configured issuer for this server's audience; the server's log has the reason",
          cause,
        });
      }
    },
  };
}

/** Until when it is accepted. Its age bounds that as well: an issuer may write any number for its end. */
function lastSecond(
  { exp, iat }: { readonly exp: number; readonly iat: number },
  { maxTokenAgeMs }: Issuer,
): number {
  return Math.min(exp, iat + maxTokenAgeMs / 1000) + clockToleranceSeconds;
}

/** One base64url part as an object; strict where a lenient reader could see other claims than we do. */
function readObject(part: string): Record<string, unknown> {
  const bytes = Buffer.from(part, "base64url");
  if (bytes.toString("base64url") !== part) throw new Error("not canonical base64url");
  const value = parseStrictJson(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes), 16);
  return v.parse(v.record(v.string(), v.unknown()), value);
}
