import * as v from "valibot";

import { rootSchema, rootSchemaName } from "../root/root-text.ts";
import { check, count, mapOf, nameText, sha256Text } from "../schema.ts";
import { fixedTrustEntries, fixedTrustSchema, namesSigner } from "./trust.ts";
import type { FixedTrustText } from "./trust.ts";

const managedTrustEntries = {
  root: v.lazy((root) => (typeof root === "string" ? v.string() : rootSchema)),
  sha256: v.exactOptional(sha256Text),
  minRootVersion: v.exactOptional(count(1)),
  trustDomains: v.exactOptional(mapOf(nameText, v.string())),
};

/**
 * Shape of a trust that pins a root: `root` is the path of its document, its text, or the document itself; `sha256` is of its
 * bytes, hex; each of `trustDomains` is the path of a `trusted_root.json`.
 */
export const managedTrustSchema = v.strictObject(managedTrustEntries);

/** A trust that pins a root, as it is written: {@link managedTrustSchema}. */
export type ManagedTrustText = v.InferOutput<typeof managedTrustSchema>;

/** A trust as it is written: it pins signers themselves, or a root that names them. */
export type TrustText = FixedTrustText | ManagedTrustText;

/** Shape of a trust in the configuration: what {@link readTrustText} takes, as one object, so that a wrong field is named. */
export const trustSchema = v.pipe(
  v.strictObject({
    ...fixedTrustEntries,
    ...managedTrustEntries,
    root: v.exactOptional(managedTrustEntries.root),
  }),
  v.check(
    (text) => isManaged(text) || (namesSigner(text) && !("sha256" in text || "minRootVersion" in text)),
    "a trust with keys or identities, or with a root",
  ),
  v.check(
    (text) => !isManaged(text) || Object.keys(text).every((name) => name in managedTrustEntries),
    "a root alone: keys, thresholds and epochs are the root's to say",
  ),
);

/**
 * A trust's text form, checked.
 *
 * @throws RunnerError `TRUST_INVALID` — with the field
 */
export function readTrustText(value: unknown, what: string): TrustText {
  return check(isManaged(value) ? managedTrustSchema : fixedTrustSchema, value, what, "TRUST_INVALID");
}

/** Whether a trust pins a root. */
export function isManagedText(text: TrustText): text is ManagedTrustText {
  return isManaged(text);
}

/** Whether a file that is named as a trust is a root document: that is a trust by itself. */
export function isRootDocument(value: unknown): boolean {
  return hasOwn(value, "schema") && value.schema === rootSchemaName;
}

function isManaged(value: unknown): boolean {
  return hasOwn(value, "root");
}

function hasOwn<K extends string>(value: unknown, name: K): value is Readonly<Record<K, unknown>> {
  return typeof value === "object" && value !== null && Object.hasOwn(value, name);
}
