import type { FolderOptions } from "./folder-path.ts";
import type { GcsOptions } from "./gcs-request.ts";
import { parseLocation } from "./location.ts";
import type { Patience } from "./retry.ts";
import type { S3Options } from "./s3-requests.ts";
import type { WritableSource } from "./source.ts";

/** What each kind of source can be told; those of other kinds than the URL's are not looked at. */
export interface SourceOptions {
  readonly s3?: S3Options;
  readonly gcs?: GcsOptions;
  readonly folder?: FolderOptions;
  /** `sourceLimits` when absent */
  readonly patience?: Patience;
}

/**
 * The source at `s3://bucket/prefix`, `gs://bucket/prefix` (also `gcs://`), `file:///folder` or a folder's path.
 *
 * Nothing is asked of it yet. A cloud's SDK is loaded by the first request that needs it.
 *
 * @throws RunnerError `USAGE` — none of these
 */
export async function openSource(url: string, options: SourceOptions = {}): Promise<WritableSource> {
  const location = parseLocation(url);
  switch (location.kind) {
    case "s3": {
      const { openS3 } = await import("./s3.ts");
      return openS3(location, options.s3, options.patience);
    }
    case "gcs": {
      const { openGcs } = await import("./gcs.ts");
      return openGcs(location, options.gcs, options.patience);
    }
    case "folder": {
      const { openFolder } = await import("./folder.ts");
      return openFolder(location, options.folder, options.patience);
    }
  }
}
