import * as v from "valibot";

import { readInToto, writeInToto } from "./in-toto.ts";
import { releaseLimits } from "./limits.ts";
import { count, digestText, formatTime, nameText, sha256Text, timeText } from "./schema.ts";

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
const releasePredicateType = "urn:lockkeeper:release:v1";

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
    issued: formatTime(statement.issued),
    expires: formatTime(statement.expires),
    ...(source && { source: { uri: source.uri, digest: { gitCommit: source.gitCommit } } }),
  };
  return writeInToto({
    subject: "manifest.json",
    sha256: statement.manifestSha256,
    predicateType: releasePredicateType,
    predicate,
  });
}

/**
 * A payload whose signatures were counted → what it says (trust.md 2.5.6).
 *
 * @throws RunnerError `JSON_…`, `PREDICATE_TYPE` — signed by a trusted key, but to say something else; `SCHEMA`
 */
export function readStatement(payload: Uint8Array): ReleaseStatement {
  const { sha256, predicate } = readInToto(payload, {
    what: "the signed statement",
    kind: "a release of this kind",
    predicateType: releasePredicateType,
    predicate: predicateSchema,
  });
  const { source, issued, expires, ...rest } = predicate;
  return {
    ...rest,
    manifestSha256: sha256,
    issued: new Date(issued),
    expires: new Date(expires),
    ...(source && { source: { uri: source.uri, gitCommit: source.digest.gitCommit } }),
  };
}

const predicateSchema = v.strictObject({
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
});
