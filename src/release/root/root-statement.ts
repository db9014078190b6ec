import * as v from "valibot";

import { sha256Hex } from "../../migration/checksum.ts";
import { readInToto, writeInToto } from "../in-toto.ts";
import type { Root } from "./root.ts";
import { count, nameText } from "../schema.ts";

/** What a root key holder says of a root document. */
export interface RootStatement {
  readonly org: string;
  readonly version: number;
  /** of the document's bytes, hex */
  readonly sha256: string;
}

/** Our predicate's name for roots. */
const rootPredicateType = "urn:lockkeeper:root:v1";

/** The bytes to sign for a root document; equal documents give equal bytes. */
export function writeRootStatement(
  { org, version }: Pick<Root, "org" | "version">,
  document: Uint8Array,
): Buffer {
  return writeInToto({
    subject: subjectName,
    sha256: sha256Hex(document),
    predicateType: rootPredicateType,
    predicate: { org, version },
  });
}

/**
 * A payload whose signatures were counted → which root it is about.
 *
 * @throws RunnerError `JSON_…`, `PREDICATE_TYPE` — a release, or whatever else the same keys sign; `SCHEMA`
 */
export function readRootStatement(payload: Uint8Array): RootStatement {
  const { sha256, predicate } = readInToto(payload, {
    what: "the statement that signs the root",
    kind: "a root",
    predicateType: rootPredicateType,
    predicate: v.strictObject({ org: nameText, version: count(1) }),
  });
  return { ...predicate, sha256 };
}

const subjectName = "root.json";
