import { RunnerError } from "../error.ts";
import { parseDigest } from "../migration/checksum.ts";
import type { Engine } from "../migration/migration.ts";
import type { Source } from "../source/source.ts";
import { readExact } from "./body.ts";
import { readEnvelopes } from "./envelope.ts";
import { readHead } from "./head.ts";
import type { Head } from "./head.ts";
import type { PublicKey } from "./key.ts";
import { layout } from "./layout.ts";
import { releaseLimits } from "./limits.ts";
import { readStatement } from "./statement.ts";
import type { Trust } from "./trust.ts";
import { verifyManifest, verifyStatement } from "./verify.ts";
import type { Expectations, VerifiedRelease, VerifiedStatement } from "./verify.ts";

/** The release that a new one continues. */
export interface EarlierRelease {
  readonly head: Head;
  /** state of `head.json`, for the compare-and-swap */
  readonly headVersion: string;
  readonly statement: VerifiedStatement;
  readonly release: VerifiedRelease;
}

/** What a release must be to be continued. */
export interface EarlierExpectations {
  readonly stream: string;
  readonly engine: Engine;
  readonly keys: readonly PublicKey[];
  /** digest of the release to continue in place of the newest: the way back after a stolen key has published */
  readonly follow?: string | undefined;
}

/**
 * The newest release under a prefix, signed by one of `keys` at least, whatever its time; `undefined` for an empty prefix.
 *
 * It is verified though it is only continued: whoever writes the bucket could else choose the order that the next signer signs.
 *
 * @throws RunnerError `WRONG_STREAM` — the prefix is of another stream; `THRESHOLD` — none of `keys` signed it; the codes of `verify.ts`
 */
export async function readEarlier(
  source: Source,
  expectations: EarlierExpectations,
  signal: AbortSignal,
): Promise<EarlierRelease | undefined> {
  const object = await source.read(layout.head, { maxBytes: releaseLimits.headBytes }, signal);
  if (object === undefined) return undefined;
  const head = readHead(object.bytes);
  const digest = expectations.follow ?? head.digest;
  const bytes = await readPart(
    source,
    layout.release(parseDigest(digest) ?? ""),
    releaseLimits.releaseBytes,
    signal,
  );
  // Read before its signatures are counted, to say of which stream it is and to judge it by its own time; refusing needs no proof.
  const claimed = readStatement(readEnvelopes(bytes)[0]?.payload ?? Buffer.alloc(0));
  const { engine, keys, stream } = expectations;
  if (claimed.stream !== stream) {
    throw new RunnerError(
      "WRONG_STREAM",
      `${source.url} holds the stream "${claimed.stream}", not "${stream}"`,
      {
        hint: "publish each stream under a prefix of its own",
        fields: { expected: stream, actual: claimed.stream },
      },
    );
  }
  const statement = verifyEarlier(bytes, keys, {
    stream,
    engine,
    environment: claimed.environments[0] ?? "",
    highWaterMark: undefined,
    expected: digest,
    now: claimed.issued,
  });
  const manifest = await readPart(
    source,
    layout.manifest(statement.manifestSha256),
    statement.manifestSize,
    signal,
  );
  return { head, headVersion: object.version, statement, release: verifyManifest(statement, manifest) };
}

function verifyEarlier(
  bytes: Buffer,
  keys: readonly PublicKey[],
  expectations: Omit<Expectations, "trust">,
): VerifiedStatement {
  const rule = { threshold: 1, maxValidityDays: Infinity };
  const trust: Trust = {
    kind: "fixed",
    keys,
    identities: [],
    keyless: null,
    rule,
    release: new Map(),
    minVersion: 1,
    revoked: new Set<string>(),
    epoch: null,
    timestamp: null,
  };
  try {
    return verifyStatement(bytes, { ...expectations, trust });
  } catch (error) {
    if (!(error instanceof RunnerError) || error.code !== "THRESHOLD") throw error;
    throw new RunnerError(
      "THRESHOLD",
      "none of the given keys signed the release that this one would continue",
      {
        hint: "name the public keys of the earlier signers with --trust",
        fields: error.fields,
        cause: error,
      },
    );
  }
}

async function readPart(source: Source, key: string, size: number, signal: AbortSignal): Promise<Buffer> {
  const bytes = await readExact(source, key, size, signal);
  if (bytes !== undefined && bytes !== "longer") return bytes;
  throw new RunnerError(
    "RELEASE_NOT_FOUND",
    `${key}, which the newest release needs, ${bytes === undefined ? "is not" : "is too long"} under ${source.url}`,
    {
      hint: "restore the object, or publish to a new prefix",
    },
  );
}
