/** Signature algorithms an issuer may use: asymmetric ones only, so that no public key can serve as a secret. */
export const algorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;

/** Issuers whose traps are known; others are not linted. */
export const platforms = ["github", "gitlab", "google", "kubernetes", "aws"] as const;

/** One of {@link platforms}. */
export type Platform = (typeof platforms)[number];

/** One source of tokens that is believed, and only with its own keys. */
export interface Issuer {
  /** as rules call it */
  readonly name: string;
  /** `iss`, compared exactly */
  readonly issuer: string;
  readonly keys:
    | { readonly kind: "uri"; readonly uri: string }
    | { readonly kind: "file"; readonly path: string };
  readonly algorithms: readonly string[];
  readonly maxTokenAgeMs: number;
  /** media type that the token's header has to name, such as `at+jwt` (RFC 9068); null: any */
  readonly typ: string | null;
}

/** Gateways of AWS that check a caller's signature and say in the event who it was; the value is the event's shape. */
export const frontends = ["lambda-iam", "rest-api-iam"] as const;

/** An AWS gateway in front of the server that lets only callers with IAM credentials pass. */
export interface IamFront {
  /** as rules call it */
  readonly name: string;
  /** `lambda-iam`: a function URL or an HTTP API (payload 2.0); `rest-api-iam`: a REST API */
  readonly frontend: (typeof frontends)[number];
}

/** Keys are only fetched over TLS from a named host, whatever the network between. */
export function isFetchable(value: string): boolean {
  const url = URL.parse(value);
  if (
    url === null ||
    url.protocol !== "https:" ||
    url.username !== "" ||
    url.password !== "" ||
    url.hash !== ""
  )
    return false;
  return !url.hostname.startsWith("[") && !/^[0-9.]+$/.test(url.hostname);
}

/** Whose tokens these are, by the issuer's address; companies' own hosts are only known where the policy says so. */
export function platformOf(issuer: string): Platform | undefined {
  const url = URL.parse(issuer.includes("://") ? issuer : `https://${issuer}`);
  if (url === null) return undefined;
  if (/(^|\.)github(usercontent)?\./.test(url.hostname) || url.pathname.endsWith("/_services/token"))
    return "github";
  if (/(^|\.)gitlab\./.test(url.hostname)) return "gitlab";
  if (url.hostname === "accounts.google.com") return "google";
  if (url.hostname.endsWith(".tokens.sts.global.api.aws")) return "aws";
  const isCluster =
    url.hostname.startsWith("oidc.eks.") ||
    url.hostname === "container.googleapis.com" ||
    url.hostname === "kubernetes.default.svc" ||
    url.hostname.startsWith("kubernetes.default.svc.") ||
    url.hostname.endsWith(".oic.prod-aks.azure.com");
  return isCluster ? "kubernetes" : undefined;
}
