/**
 * Where releases are kept: a bucket or a folder. Knows bytes and names, nothing of trust.
 *
 * Keys are relative to the source's own prefix, `/`-separated, never empty, never starting with `/` and
 * without `.` or `..` segments: another one is `SOURCE_UNSAFE`. A call whose signal is aborted rejects at once with the
 * signal's reason. Implementations pass `sourceSuite` of `test/conformance/source.ts`.
 */
export interface Source {
  /** `s3://bucket/prefix`, `gs://bucket/prefix` or `file:///abs/folder`; for logs and errors, never holds a credential. */
  readonly url: string;

  /**
   * All objects directly under the prefix whose key starts with `prefix`, in code-unit order of their keys,
   * from every page. Objects in deeper "folders" are left out.
   *
   * @param onFolder - told the name of each such folder, `2024/`
   * @throws RunnerError `SOURCE_UNAVAILABLE` when a page fails after its retries or a page cursor repeats; never a partial list.
   * @throws RunnerError `TOO_LARGE` above {@link sourceLimits.listedObjects}.
   * @throws RunnerError `SOURCE_UNSAFE` for a file that `read` would refuse: nothing is left out in silence.
   */
  list(prefix: string, signal: AbortSignal, onFolder?: (name: string) => void): Promise<readonly Listed[]>;

  /**
   * The exact bytes stored at `key` (never decompressed), or `undefined` when there is no such object.
   *
   * Repeating the call is safe. A body that ends early is retried, then `TRUNCATED`.
   *
   * @param options.maxBytes - ceiling on the body; one byte more is `TOO_LARGE`, found while streaming
   * @param options.version - read exactly the object state that a listing or an earlier read named; if it is gone, `SOURCE_CHANGED`
   * @throws RunnerError `SOURCE_UNAVAILABLE`, `SOURCE_DENIED` (403), `SOURCE_NOT_FOUND` (no such bucket or folder), `SOURCE_REFUSED` (the store does not understand us), `SOURCE_UNSAFE` (folder: symlink out, not a regular file)
   */
  read(
    key: string,
    options: { maxBytes: number; version?: string },
    signal: AbortSignal,
  ): Promise<StoredObject | undefined>;

  /**
   * As `read`, but answers `"unchanged"` when the object still has the state `version`. One request, and no body of a store that knows the condition.
   */
  readIfChanged(
    key: string,
    version: string | undefined,
    options: { maxBytes: number },
    signal: AbortSignal,
  ): Promise<StoredObject | "unchanged" | undefined>;
}

/** A source that can also be written; only `publish` and its kin hold one. */
export interface WritableSource extends Source {
  /**
   * Writes `bytes` at `key` in one step: readers see the old object or the whole new one.
   *
   * `{ absent: true }` creates only; `{ version }` replaces only that state (compare-and-swap).
   *
   * Repeating the call is safe: a write whose answer was lost is recognized as our own by its bytes.
   *
   * @returns the new state's version, or `"conflict"` when the condition did not hold (nothing was written)
   */
  write(
    key: string,
    bytes: Uint8Array,
    condition: { readonly absent: true } | { readonly version: string },
    signal: AbortSignal,
  ): Promise<{ readonly version: string } | "conflict">;
}

/** One row of a listing. */
export interface Listed {
  readonly key: string;
  /** bytes, as the store says; a body of another length is `TRUNCATED` */
  readonly size: number;
  /**
   * Opaque name of this state of the object: S3 ETag and version id, GCS generation, folder: size, mtime and inode.
   *
   * For `read`, `readIfChanged` and `write` only; not to be compared: an S3 listing does not know the version id that a read gives.
   */
  readonly version: string;
}

/** One object, whole. */
export interface StoredObject {
  readonly bytes: Buffer;
  /** as in {@link Listed.version} */
  readonly version: string;
}

/** Ceilings and patience of every source, in one place. */
export const sourceLimits = {
  /** objects in one listing */
  listedObjects: 200_000,
  /** tries of one request, the first included */
  attempts: 5,
  /** milliseconds before the second try; doubles, with full jitter */
  backoffMs: 100,
  /** milliseconds, the longest wait between two tries */
  maxBackoffMs: 3_000,
  /** milliseconds until a connection must stand */
  connectMs: 5_000,
  /** milliseconds without a byte until a request is given up */
  idleMs: 15_000,
  /** requests of one runner under way at once */
  concurrency: 32,
} as const;
