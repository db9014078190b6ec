import { RunnerError } from "../error.ts";

/** What a store said of an object's state. */
export interface S3State {
  readonly etag: string | undefined;
  /** where the bucket keeps old versions */
  readonly id: string | undefined;
}

/**
 * One text for a state: `"<etag>"`, or `"<etag>"@<version id>` where that pins it.
 *
 * @throws RunnerError `SOURCE_REFUSED` - the store gave no ETag
 */
export function encodeVersion({ etag, id }: S3State, url: string, key: string): string {
  if (etag === undefined) {
    throw new RunnerError("SOURCE_REFUSED", `${url}: the store gave no ETag for "${key}"`, {
      hint: "lockkeeper needs a store with ETags and conditional requests",
      fields: { source: url, key },
    });
  }
  // "null" is what a bucket whose versioning is suspended overwrites in place: it pins nothing.
  const isPinned = id !== undefined && id !== "" && id !== "null";
  return isPinned ? `${etag}@${id}` : etag;
}

/** The parts of {@link encodeVersion}'s text. */
export function decodeVersion(version: string): { readonly etag: string; readonly id: string | undefined } {
  const end = version.indexOf('"@');
  return end === -1
    ? { etag: version, id: undefined }
    : { etag: version.slice(0, end + 1), id: version.slice(end + 2) };
}
