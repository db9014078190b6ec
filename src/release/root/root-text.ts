import * as v from "valibot";

import { identityId, identitySchema } from "../trust/identity.ts";
import { releaseLimits } from "../limits.ts";
import { count, digestText, mapOf, nameText, timeText } from "../schema.ts";

/** Name of the document's format. */
export const rootSchemaName = "urn:lockkeeper:root:v1";

/** A key as a root writes it, under its id. */
export const rootKeyText = v.strictObject({
  type: v.picklist(["ecdsa-p256", "ed25519"]),
  name: v.exactOptional(nameText),
  pem: v.pipe(v.string(), v.maxLength(1_024, "at most 1024 characters")),
});

const identityText = v.strictObject({ ...identitySchema.entries, name: v.exactOptional(nameText) });

const roleEntries = (most: number) => ({
  keys: v.pipe(
    v.array(v.string()),
    v.minLength(1, "at least one key"),
    v.maxLength(most, `at most ${most} keys`),
  ),
  // each signer writes a line, and a file has so many
  threshold: count(1, Math.min(most, releaseLimits.bundles)),
});

const names = v.pipe(v.array(nameText), v.minLength(1, "at least one name"));

/** Shape of a root document; a field that it does not have is an error. */
export const rootSchema = v.strictObject({
  schema: v.literal(rootSchemaName),
  org: nameText,
  version: count(1),
  expires: timeText,
  keys: mapOf(
    v.union([digestText, identityId]),
    v.lazy((key) => (isIdentityText(key) ? identityText : rootKeyText)),
  ),
  roles: v.strictObject({
    root: v.strictObject(roleEntries(releaseLimits.rootKeys)),
    release: v.pipe(
      v.array(
        v.strictObject({
          streams: names,
          environments: names,
          ...roleEntries(releaseLimits.keys),
          maxValidityDays: v.exactOptional(count(1, 36_500)),
        }),
      ),
      v.minLength(1, "at least one rule"),
    ),
    timestamp: v.exactOptional(v.strictObject(roleEntries(releaseLimits.keys))),
  }),
  streams: mapOf(nameText, v.strictObject({ epoch: count(1), minVersion: count(1) })),
  revoked: v.strictObject({ releases: v.array(digestText) }),
});

/** A root document as it is written: {@link rootSchema}. */
export type RootText = v.InferOutput<typeof rootSchema>;

/** A key as it is written: {@link rootKeyText}. */
export type RootKeyText = v.InferOutput<typeof rootKeyText>;

function isIdentityText(value: unknown): boolean {
  return typeof value === "object" && value !== null && "type" in value && value.type === "sigstore";
}
