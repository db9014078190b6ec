/** Where databases, buckets and secrets are, without the punctuation after it; an ARN and a project's path name the account as well. */
const address =
  /\b(?:(?:(postgres(?:ql)?|mongodb(?:\+srv)?)|s3|gs|gcs|file):\/\/[^\s"'`]*[^\s"'`:;,.]|arn:aws[a-z-]*:secretsmanager:[^\s"'`]*[^\s"'`:;,.]|projects\/[^\s/"'`]+\/secrets\/[^\s"'`]*[^\s"'`:;,.])/g;

/**
 * A message for a caller: where databases, buckets and secrets are, is for those who run the server, and in its log.
 * A caller knows the target by its name.
 */
export function withoutAddress(text: string): string {
  return text.replace(address, (found: string, database: string | undefined) => {
    if (database !== undefined) return "the database";
    return found.startsWith("arn:") || found.startsWith("projects/")
      ? "(its name is in the log)"
      : "the bucket";
  });
}
