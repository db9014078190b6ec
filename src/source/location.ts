import { fileURLToPath } from "node:url";
import { resolve, sep } from "node:path";
import { RunnerError } from "../error.ts";

/** Where a source is, read from what a person wrote. `prefix` is empty or ends with `/`. */
export type Location =
  | ({ readonly kind: "s3" } & BucketLocation)
  | ({ readonly kind: "gcs" } & BucketLocation)
  | ({ readonly kind: "folder" } & FolderLocation);

/** A prefix in a bucket. */
export interface BucketLocation {
  readonly url: string;
  readonly bucket: string;
  readonly prefix: string;
}

/** A folder on disk. */
export interface FolderLocation {
  readonly url: string;
  /** absolute */
  readonly folder: string;
}

/** The union of what S3 and GCS allow; each store has the last word. */
const bucketName = /^[A-Za-z0-9][A-Za-z0-9._-]{1,220}[A-Za-z0-9]$/;

// A single letter before a colon is a Windows drive.
const scheme = /^([A-Za-z][A-Za-z0-9+.-]+):/;

// Control characters cannot stand in an XML listing, nor safely in a log line.
const control = /\p{Cc}/u;

const shapes = "write s3://bucket/prefix, gs://bucket/prefix, file:///folder or the path of a folder";

/**
 * Reads `s3://bucket/prefix`, `gs://…` (also `gcs://…`), `file:///abs` or a folder's path.
 *
 * @throws RunnerError `USAGE` — anything else; the text itself is not repeated where it may hold a secret
 */
export function parseLocation(text: string): Location {
  if (text.trim() === "") throw usage("the source is empty");
  if (control.test(text)) throw usage("the source holds a control character");
  const name = scheme.exec(text)?.[1]?.toLowerCase();
  switch (name) {
    case undefined:
      return { kind: "folder", ...folderLocation(resolve(text)) };
    case "file":
      return { kind: "folder", ...folderLocation(folderOfUrl(text)) };
    case "s3":
      return { kind: "s3", ...bucketLocation("s3", text) };
    case "gs":
    case "gcs":
      return { kind: "gcs", ...bucketLocation("gs", text) };
    default:
      throw usage(`the source's scheme "${name}" is not known`);
  }
}

/**
 * Refuses a key that could name something outside the source.
 *
 * @throws RunnerError `SOURCE_UNSAFE` — empty, absolute, with an empty, `.` or `..` segment, a backslash or a control character
 */
export function assertKey(key: string, url: string): void {
  const isSafe =
    key !== "" &&
    !key.includes("\\") &&
    !control.test(key) &&
    key.split("/").every((segment) => !["", ".", ".."].includes(segment));
  if (isSafe) return;
  throw new RunnerError("SOURCE_UNSAFE", `the key ${JSON.stringify(key)} could lead out of ${url}`, {
    fields: { source: url, key },
  });
}

/** Code-unit order: the one order of keys, the same for every store. */
export function compareKeys(a: { readonly key: string }, b: { readonly key: string }): number {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

function bucketLocation(shown: string, text: string): BucketLocation {
  const rest = text.slice(text.indexOf(":") + 1);
  if (!rest.startsWith("//")) throw usage(`after "${shown}:" two slashes and a bucket are expected`);
  const slash = rest.indexOf("/", 2);
  const bucket = slash === -1 ? rest.slice(2) : rest.slice(2, slash);
  const path = slash === -1 ? "" : rest.slice(slash + 1).replace(/\/$/, "");
  if (bucket.includes("@")) {
    throw usage(
      "credentials do not belong into a source's URL",
      "give them by the environment or the configuration",
    );
  }
  if (/[?#]/.test(rest)) {
    throw usage(
      "a source's URL has no options",
      "give the region or the endpoint by the environment or the configuration",
    );
  }
  if (!bucketName.test(bucket)) throw usage(`"${bucket}" is not a bucket's name`);
  const segments = path === "" ? [] : path.split("/");
  if (segments.some((segment) => ["", ".", ".."].includes(segment))) {
    throw usage(`the prefix "${path}" has an empty, "." or ".." segment`);
  }
  const url = [`${shown}://${bucket}`, ...segments].join("/");
  return { url, bucket, prefix: segments.map((segment) => `${segment}/`).join("") };
}

function folderOfUrl(text: string): string {
  try {
    return resolve(fileURLToPath(text));
  } catch (cause) {
    throw usage("a file URL has three slashes and an absolute path", undefined, cause);
  }
}

function folderLocation(folder: string): FolderLocation {
  // Not pathToFileURL: a person should find their folder's name in a message, not its percent-encoding.
  const path = folder.split(sep).join("/");
  return { url: `file://${path.startsWith("/") ? "" : "/"}${path}`, folder };
}

function usage(message: string, hint: string = shapes, cause?: unknown): RunnerError {
  return new RunnerError("USAGE", message, { hint, cause });
}
