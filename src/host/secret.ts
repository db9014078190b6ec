import { RunnerError } from "../error.ts";

/** A secret that a cloud keeps, by its full name. */
export type SecretReference =
  | { readonly kind: "aws"; readonly arn: string; readonly region: string }
  | { readonly kind: "google"; readonly name: string };

/** For tests: other servers than the clouds' own. */
export interface SecretOptions {
  readonly googleEndpoint?: string;
}

/** The `!` stands in the names of those that services of AWS manage. */
const awsSecret = /^arn:aws[a-z-]*:secretsmanager:([a-z0-9-]+):\d{12}:secret:[A-Za-z0-9/_+=.@!-]{1,520}$/;
const googleSecret =
  /^projects\/[a-z0-9.:-]{1,63}\/secrets\/[A-Za-z0-9_-]{1,255}(?:\/versions\/([A-Za-z0-9_-]{1,63}))?$/;

/** A secret's name: `arn:aws:secretsmanager:…` or `projects/…/secrets/…`, of which the newest version is meant; undefined for any other text. */
export function parseSecretReference(text: string): SecretReference | undefined {
  const region = awsSecret.exec(text)?.[1];
  if (region !== undefined) return { kind: "aws", arn: text, region };
  const google = googleSecret.exec(text);
  if (google === null) return undefined;
  return { kind: "google", name: google[1] === undefined ? `${text}/versions/latest` : text };
}

/**
 * A secret's text, asked for anew at each call.
 *
 * @throws RunnerError `CONFIG` - it is no secret's name, or there is no such secret; `DATABASE_DENIED` - not for us; `DATABASE_UNAVAILABLE` - it cannot be asked for now
 */
export async function readSecret(text: string, options: SecretOptions = {}): Promise<string> {
  const reference = parseSecretReference(text);
  switch (reference?.kind) {
    case "aws": {
      const { readAwsSecret } = await import("./aws-secret.ts");
      return readAwsSecret(reference.arn, reference.region);
    }
    case "google": {
      const { readGoogleSecret } = await import("./google-secret.ts");
      return readGoogleSecret(reference.name, options.googleEndpoint);
    }
    case undefined:
      throw new RunnerError("CONFIG", `"${text.slice(0, 20)}…" is no name of a secret`, {
        hint: "write arn:aws:secretsmanager:<region>:<account>:secret:<name> or projects/<project>/secrets/<name>",
      });
  }
}
