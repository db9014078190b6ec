import * as v from "valibot";

import { RunnerError } from "../error.ts";
import { formatDigest, parseDigest } from "../migration/checksum.ts";
import { readEnvelopes } from "./envelope.ts";
import { readInToto, writeInToto } from "./in-toto.ts";
import { layout } from "./layout.ts";
import { clockToleranceMs, releaseLimits } from "./limits.ts";
import type { HighWaterMark } from "./release.ts";
import { count, digestText, formatTime, nameText, timeText } from "./schema.ts";
import { onlyKeys, signersOf } from "./trust/signers.ts";
import type { TimestampRule } from "./trust/trust.ts";

/** Somebody's word that a release was the newest of its stream when it was issued (trust.md 2.6). */
export interface Timestamp extends HighWaterMark {
  readonly stream: string;
  readonly issued: Date;
  readonly expires: Date;
}

/** Our predicate's name in an in-toto Statement: nothing signed as this passes for a release or a root. */
const timestampPredicateType = "urn:lockkeeper:timestamp:v1";

/** Longest time from issue to expiry: whoever wants longer has a release's own expiry. */
export const maxTimestampHours = 30 * 24;

const hourMs = 3_600_000;

/** The bytes to sign. One line; two calls with equal timestamps give equal bytes. */
export function writeTimestamp({ stream, epoch, version, digest, issued, expires }: Timestamp): Buffer {
  return writeInToto({
    // in-toto wants a name and a digest of bytes: a release is named by its statement's
    subject: "release",
    sha256: parseDigest(digest) ?? "",
    predicateType: timestampPredicateType,
    predicate: {
      stream,
      epoch,
      version,
      release: digest,
      issued: formatTime(issued),
      expires: formatTime(expires),
    },
  });
}

/**
 * A payload whose signatures were counted → what it says.
 *
 * @throws RunnerError `JSON_…`, `PREDICATE_TYPE`, `SCHEMA`
 */
function readTimestamp(payload: Uint8Array): Timestamp {
  const { sha256, predicate } = readInToto(payload, {
    what: "the signed timestamp",
    kind: "a timestamp",
    predicateType: timestampPredicateType,
    predicate: predicateSchema,
  });
  const { release, issued, expires, ...rest } = predicate;
  if (formatDigest(sha256) !== release) {
    throw new RunnerError("SCHEMA", "the signed timestamp names two releases", {
      fields: { field: "predicate.release", subject: formatDigest(sha256), release },
    });
  }
  return { ...rest, digest: release, issued: new Date(issued), expires: new Date(expires) };
}

/** Who must have signed a timestamp, about what, and when it is looked at. */
export interface TimestampExpectations {
  readonly rule: TimestampRule;
  readonly stream: string;
  /** read once per run */
  readonly now: Date;
}

/**
 * What a bucket has as its timestamp → what it says, if the role's own keys said it, of this stream and this time. No I/O.
 *
 * Keys of releases count for nothing here, and the role's keys for nothing elsewhere, unless a trust lists them as both.
 *
 * @throws RunnerError `TIMESTAMP_MISSING`; the codes of an envelope; `THRESHOLD`, `JSON_…`, `PREDICATE_TYPE`, `SCHEMA`,
 * `WRONG_STREAM`, `ISSUED_IN_FUTURE`, `VALIDITY`, `TIMESTAMP_EXPIRED`, in this order
 */
export function verifyTimestamp(bytes: Buffer | undefined, expectations: TimestampExpectations): Timestamp {
  const { rule, stream, now } = expectations;
  if (bytes === undefined) {
    throw new RunnerError(
      "TIMESTAMP_MISSING",
      `the trust wants a timestamp, and there is no ${layout.timestamp}`,
      {
        hint: 'run "lockkeeper release timestamp", or name the release that is wanted by its digest',
      },
    );
  }
  const timestamp = readVouched(bytes, rule);
  assertOfStream(timestamp, stream);
  assertTimes(timestamp, now);
  return timestamp;
}

/**
 * What enough of the role's keys have said, whenever that was. Signatures first: no byte of the payload is parsed before.
 *
 * @throws RunnerError `TOO_LARGE`, the codes of an envelope, `THRESHOLD`, `JSON_…`, `PREDICATE_TYPE`, `SCHEMA`
 */
export function readVouched(bytes: Buffer, { keys, threshold }: TimestampRule): Timestamp {
  if (bytes.length > releaseLimits.timestampBytes) {
    throw new RunnerError(
      "TOO_LARGE",
      `the timestamp has ${bytes.length} bytes, more than ${releaseLimits.timestampBytes}`,
    );
  }
  const envelopes = readEnvelopes(bytes, "the timestamp");
  const signers = signersOf(envelopes, onlyKeys(keys));
  if (signers.length < threshold) {
    throw new RunnerError(
      "THRESHOLD",
      `the timestamp has ${signers.length} of the ${threshold} signatures of its role that are needed`,
      {
        hint: "compare the keys of the trust's timestamp role with those of whoever vouches",
        fields: { counted: signers.length, threshold, lines: envelopes.length },
      },
    );
  }
  return readTimestamp(envelopes[0]?.payload ?? Buffer.alloc(0));
}

/**
 * Whether a release is at least as new as the one that was vouched for. A newer one is taken on its own signatures: it
 * may have been published since.
 *
 * @throws RunnerError `STALE_RELEASE`
 */
export function assertNotStale(release: HighWaterMark, timestamp: Timestamp): void {
  const ahead = release.epoch - timestamp.epoch || release.version - timestamp.version;
  if (ahead > 0 || (ahead === 0 && release.digest === timestamp.digest)) return;
  throw new RunnerError(
    "STALE_RELEASE",
    ahead === 0
      ? `the timestamp vouches for another release ${release.version} than the one that the source names`
      : `the source names release ${release.version} as its newest, and release ${timestamp.version} was vouched for`,
    {
      hint: "find out who holds the newer release back; or name the wanted one by its digest",
      fields: {
        epoch: release.epoch,
        version: release.version,
        digest: release.digest,
        vouchedEpoch: timestamp.epoch,
        vouchedVersion: timestamp.version,
        vouched: timestamp.digest,
      },
    },
  );
}

const predicateSchema = v.strictObject({
  stream: nameText,
  epoch: count(1),
  version: count(1),
  release: digestText,
  issued: timeText,
  expires: timeText,
});

function assertOfStream({ stream: actual }: Timestamp, expected: string): void {
  if (actual === expected) return;
  throw new RunnerError("WRONG_STREAM", `the timestamp is of the stream "${actual}", not "${expected}"`, {
    fields: { expected, actual },
  });
}

function assertTimes({ issued, expires }: Timestamp, now: Date): void {
  if (issued.getTime() > now.getTime() + clockToleranceMs) {
    throw new RunnerError(
      "ISSUED_IN_FUTURE",
      `the timestamp was issued at ${issued.toISOString()}, which is to come`,
      {
        hint: "check the clocks of this machine and of whoever vouches",
        fields: { issued: issued.toISOString(), now: now.toISOString() },
      },
    );
  }
  const hours = (expires.getTime() - issued.getTime()) / hourMs;
  if (hours <= 0 || hours > maxTimestampHours) {
    throw new RunnerError(
      "VALIDITY",
      `the timestamp is valid for ${Math.ceil(hours)} hours, and up to ${maxTimestampHours} are allowed`,
      {
        hint: 'run "lockkeeper release timestamp" with another --expires',
        fields: { hours, maxTimestampHours },
      },
    );
  }
  if (now < expires) return;
  throw new RunnerError("TIMESTAMP_EXPIRED", `the timestamp expired at ${expires.toISOString()}`, {
    hint: 'find out why nobody renews it, and run "lockkeeper release timestamp"; or name the wanted release by its digest',
    fields: { expires: expires.toISOString() },
  });
}
