import * as v from "valibot";

/** Who asks, once that is proved. */
export interface Principal {
  /** `iss` of a token, or what stands for it */
  readonly issuer: string;
  /** `sub` of a token, or what stands for it */
  readonly subject: string;
  /** what was proved besides */
  readonly claims: Readonly<Record<string, unknown>>;
  /** may be used for one request that changes something, see `NewRun.singleUse` */
  readonly jti: string;
  /** until when `jti` has to be remembered */
  readonly expiresAt: Date;
}

/** A caller of an issuer of the policy, with what the issuer says of it. */
export interface TokenPrincipal extends Principal {
  /** name of the issuer in the policy */
  readonly issuerName: string;
  /** `jti`; where the issuer gives none, a digest of the decoded claims, which whitespace in the token or another signature over them does not change */
  readonly jti: string;
}

/** Kept in databases and shown to people, so without control characters and halves of surrogate pairs. */
export const plain = v.pipe(v.string(), v.regex(/^[^\p{Cc}\p{Cs}]+$/u));
