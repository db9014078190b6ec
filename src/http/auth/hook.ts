/** A sender of webhooks: no identity of a person or job behind it, only a secret, or a topic, that somebody has. */
export type Hook =
  /** an HMAC-SHA256 of the body in a header */
  | {
      readonly kind: "hmac";
      readonly name: string;
      /** lower case */
      readonly header: string;
      /** before the digest, such as `sha256=` */
      readonly prefix: string;
      readonly encoding: "hex" | "base64";
      /** lower case; a delivery that says `ping` here only tries whether the address works */
      readonly pingHeader: string | null;
      readonly secretFiles: readonly string[];
    }
  /** Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature` */
  | { readonly kind: "standard-webhooks"; readonly name: string; readonly secretFiles: readonly string[] }
  /** messages of one SNS topic, signed by AWS */
  | { readonly kind: "sns"; readonly name: string; readonly topicArn: string };

/** What a webhook may be allowed: nothing that takes away, unlocks or declares. A shared secret is too weak a witness. */
export const hookActions = ["status", "plan", "verify", "apply"] as const;

/** Header and prefix that GitHub signs with; also Gitea's and Forgejo's. */
export const githubSignature = {
  header: "x-hub-signature-256",
  prefix: "sha256=",
  encoding: "hex",
  pingHeader: "x-github-event",
} as const;

/** An SNS topic's ARN, taken apart; undefined where it is none. */
export function parseTopicArn(
  arn: string,
): { readonly partition: string; readonly region: string } | undefined {
  const [, partition, region] =
    /^arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}):[0-9]{12}:[A-Za-z0-9_-]{1,256}(?:\.fifo)?$/.exec(
      arn,
    ) ?? [];
  return partition === undefined || region === undefined ? undefined : { partition, region };
}
