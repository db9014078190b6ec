/** A database's or a bucket's address, without the punctuation after it. */
const address = /\b(?:(postgres(?:ql)?|mongodb(?:\+srv)?)|s3|gs|gcs|file):\/\/[^\s"'`]*[^\s"'`:;,.]/g;

/**
 * A message for a caller: where databases and buckets are, is for those who run the server, and in its log.
 * A caller knows the target by its name.
 */
export function withoutAddress(text: string): string {
  return text.replace(address, (_, database: string | undefined) =>
    database === undefined ? "the bucket" : "the database",
  );
}
