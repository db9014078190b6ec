import type { BucketLocation } from "./location.ts";
import type { S3Options } from "./s3-requests.ts";

/** Where a bucket's objects are, and what signs a request for one: all that a GET needs. */
export interface S3Access {
  /** ends with a slash; after it comes the object's name, percent-encoded */
  readonly objects: string;
  readonly region: string;
  readonly credentials: NonNullable<S3Options["credentials"]>;
}

/** Servers other than AWS ask for a region in the signature too, and take any. */
export const anyRegion = "us-east-1";

/** Names that mean a bucket and nothing else. Double hyphens are for what AWS has beside buckets, dots break its certificates. */
const plainBucket = /^(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$/;

/** Regions of the partition whose endpoints end in `amazonaws.com`; those of the others only the SDK knows. */
const commonRegion = /^(?:af|ap|ca|eu|il|me|mx|sa|us)-[a-z]+-\d$/;

/** `undefined` where only the SDK can tell: roles, profiles, other partitions, unusual names. */
export function s3Access({ bucket }: BucketLocation, options: S3Options): S3Access | undefined {
  const { credentials, profile, endpoint, region, forcePathStyle } = options;
  if (credentials === undefined || profile !== undefined || !plainBucket.test(bucket)) return undefined;
  if (endpoint === undefined) {
    if (region === undefined || !commonRegion.test(region) || forcePathStyle === true) return undefined;
    return { objects: `https://${bucket}.s3.${region}.amazonaws.com/`, region, credentials };
  }
  if (forcePathStyle === false || !URL.canParse(endpoint)) return undefined;
  return { objects: `${endpoint.replace(/\/+$/, "")}/${bucket}/`, region: region ?? anyRegion, credentials };
}
