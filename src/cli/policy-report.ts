/** What is asked of a policy, from the command line. */
export interface PolicyQuestion {
  readonly policy: string | undefined;
  readonly config: string | undefined;
  /** names of targets; undefined: as the configuration says, or unknown */
  readonly targets: readonly string[] | undefined;
  readonly ask:
    | {
        readonly caller:
          | { readonly kind: "token"; readonly token: string }
          | { readonly kind: "claims"; readonly file: string; readonly issuer: string | undefined }
          | { readonly kind: "hook"; readonly hook: string };
        readonly target: string;
        readonly action: string;
        readonly environment: string | undefined;
        readonly hasDigest: boolean;
      }
    | undefined;
}

/** What was found about a policy, and about one request where one was asked about. */
export interface PolicyReport {
  readonly file: string;
  readonly audience: string;
  readonly issuers: number;
  readonly hooks: number;
  readonly rules: number;
  /** whether the rules' targets were held against real ones */
  readonly targetsChecked: boolean;
  readonly warnings: readonly string[];
  readonly request: PolicyVerdict | null;
}

/** What a request would come to. */
export interface PolicyVerdict {
  readonly allowed: boolean;
  readonly decision: string;
  /** code of the server's answer; null where it is allowed */
  readonly code: string | null;
  /** what proves who asks: `claims` nothing, they were taken as they are */
  readonly proof: "signature" | "claims" | "hook";
  readonly caller: { readonly name: string; readonly issuer: string; readonly subject: string } | null;
  /** why the token was not accepted; null where it was */
  readonly reason: string | null;
  /** what a token that was not accepted says about itself; nothing vouches for that */
  readonly unverified: Readonly<Record<string, string>> | null;
  readonly target: string;
  readonly action: string;
  readonly rule: string | null;
  readonly rules: readonly ReportedRule[];
  readonly advice: readonly string[];
}

/** A rule for the caller's issuer, claim by claim. */
export interface ReportedRule {
  readonly id: string;
  readonly matches: boolean;
  readonly claims: readonly {
    readonly claim: string;
    readonly wanted: readonly (string | number | boolean)[];
    readonly found: string | null;
    readonly isEqual: boolean;
  }[];
  readonly isForTarget: boolean;
  readonly allowsAction: boolean;
  readonly isDigestRequired: boolean;
}
