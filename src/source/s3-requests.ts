import type { Readable } from "node:stream";
import type { S3State } from "./s3-version.ts";

/** How to reach an S3 server. What is absent, the SDK finds in its own environment, files and instance metadata. */
export interface S3Options {
  /** another server than AWS, `http://127.0.0.1:9000` */
  readonly endpoint?: string;
  readonly region?: string;
  /** bucket in the path instead of the host name; when absent: yes with an `endpoint`, no without */
  readonly forcePathStyle?: boolean;
  readonly credentials?: {
    readonly accessKeyId: string;
    readonly secretAccessKey: string;
    readonly sessionToken?: string;
  };
  /** a profile of the shared AWS configuration */
  readonly profile?: string;
}

/** The state that a GET wants, or does not want. */
export interface S3Condition {
  readonly ifMatch?: string;
  readonly ifNoneMatch?: string;
  readonly versionId?: string;
}

/** The answer to one GET; the body is still to be read. */
export interface S3Answer extends S3State {
  readonly body: Readable;
  /** bytes, where the store says so */
  readonly size: number | undefined;
  /** whether these are the bytes that the store has a checksum of */
  isWhole(bytes: Buffer): boolean;
}

/** One GET of an object by its whole name. Rejects as the SDK does: with the store's `Code` as `name`, and `$metadata`. */
export type GetObject = (name: string, condition: S3Condition, signal: AbortSignal) => Promise<S3Answer>;

/** One request each, never repeated; all reject as {@link GetObject} does. */
export interface S3Requests {
  readonly getObject: GetObject;
  /**
   * A page of what is directly under a prefix.
   *
   * @param cursor - `next` of the page before; `undefined` for the first
   */
  listPage(
    prefix: string,
    cursor: string | undefined,
    signal: AbortSignal,
  ): Promise<{
    readonly objects: readonly {
      readonly name: string | undefined;
      readonly size: number | undefined;
      readonly etag: string | undefined;
    }[];
    readonly folders: readonly string[];
    readonly next: string | undefined;
  }>;
  /** Writes where the object has this ETag still; where it is absent, with `undefined`. */
  putObject(
    name: string,
    bytes: Uint8Array,
    ifMatch: string | undefined,
    signal: AbortSignal,
  ): Promise<S3State>;
}
