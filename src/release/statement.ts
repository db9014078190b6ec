import * as v from "valibot";

import { RunnerError } from "../error.ts";
import { releaseLimits } from "./limits.ts";
import { check, count, digestText, nameText, sha256Text } from "./schema.ts";
import { parseStrictJson } from "./strict-json.ts";

/** What a signer says of a release: the payload of every envelope. In-toto Statement v1 with our predicate. */
export interface ReleaseStatement {
  /** sha256 of the manifest's bytes, hex */
  readonly manifestSha256: string;
  /** bytes */
  readonly manifestSize: number;
  readonly stream: string;
  readonly epoch: number;
  readonly version: number;
  /** digest of release `version - 1`, null for the first */
  readonly previous: string | null;
  readonly chain: { readonly length: number; readonly head: string };
  readonly environments: readonly string[];
  readonly issued: Date;
  readonly expires: Date;
  /** where the files come from, for people */
  readonly source?: { readonly uri: string; readonly gitCommit: string };
}

/** Our predicate's name in an in-toto Statement. */
export const releasePredicateType = "urn:lockkeeper:release:v1";

const statementType = "https://in-toto.io/Statement/v1";

/** The bytes to sign. One line; two calls with equal statements give equal bytes. */
export function writeStatement(statement: ReleaseStatement): Buffer {
  const { stream, epoch, version, previous, manifestSize, chain, environments, source } = statement;
  const predicate = {
    stream,
    epoch,
    version,
    previous,
    manifestSize,
    chain: { length: chain.length, head: chain.head },
    environments,
    issued: writeTime(statement.issued),
    expires: writeTime(statement.expires),
    ...(source && { source: { uri: source.uri, digest: { gitCommit: source.gitCommit } } }),
  };
  const subject = [{ name: "manifest.json", digest: { sha256: statement.manifestSha256 } }];
  return Buffer.from(
    JSON.stringify({ _type: statementType, subject, predicateType: releasePredicateType, predicate }),
  );
}

/**
 * A payload whose signatures were counted → what it says (trust.md 2.5.6).
 *
 * @throws RunnerError `JSON_…`, `PREDICATE_TYPE` — signed by a trusted key, but to say something else; `SCHEMA`
 */
export function readStatement(payload: Uint8Array): ReleaseStatement {
  const value = parseStrictJson(payload, what, releaseLimits.bundleBytes);
  const { predicateType } = check(v.looseObject({ predicateType: v.string() }), value, what);
  if (predicateType !== releasePredicateType) {
    throw new RunnerError("PREDICATE_TYPE", "what was signed is not a release of this kind", {
      fields: { expected: releasePredicateType },
    });
  }
  const { subject, predicate } = check(statementSchema, value, what);
  const { source, issued, expires, ...rest } = predicate;
  return {
    ...rest,
    manifestSha256: subject[0].digest.sha256,
    issued: new Date(issued),
    expires: new Date(expires),
    ...(source && { source: { uri: source.uri, gitCommit: source.digest.gitCommit } }),
  };
}

const what = "the signed statement";

/** Whole seconds in UTC, one spelling a moment. */
const timeText = v.pipe(
  v.string(),
  v.regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$/, "a time like 2026-11-20T10:00:00Z"),
  v.check((text) => isMoment(text), "a time that exists"),
);

const statementSchema = v.strictObject({
  // cosign attest-blob --predicate writes v0.1
  _type: v.picklist([statementType, "https://in-toto.io/Statement/v0.1"]),
  subject: v.strictTuple([
    v.strictObject({ name: v.string(), digest: v.strictObject({ sha256: sha256Text }) }),
  ]),
  predicateType: v.literal(releasePredicateType),
  predicate: v.strictObject({
    stream: nameText,
    epoch: count(1),
    version: count(1),
    previous: v.nullable(digestText),
    manifestSize: count(1, releaseLimits.manifestBytes),
    chain: v.strictObject({ length: count(0, releaseLimits.migrations), head: sha256Text }),
    environments: v.pipe(
      v.array(nameText),
      v.minLength(1, "at least one environment"),
      v.maxLength(releaseLimits.environments, `at most ${releaseLimits.environments} environments`),
    ),
    issued: timeText,
    expires: timeText,
    source: v.exactOptional(
      v.strictObject({
        uri: v.pipe(v.string(), v.maxLength(2_048, "at most 2048 characters")),
        digest: v.strictObject({
          gitCommit: v.pipe(v.string(), v.regex(/^[0-9a-f]{40,64}$/, "a git commit in hex")),
        }),
      }),
    ),
  }),
});

function isMoment(text: string): boolean {
  const date = new Date(text);
  return !Number.isNaN(date.getTime()) && writeTime(date) === text;
}

function writeTime(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}
