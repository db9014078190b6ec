import { RunnerError } from "../../error.ts";
import { parseDuration } from "../../migration/duration.ts";
import { textFlag } from "../flag.ts";
import type { Flag } from "../flag.ts";
import { chooseStorage, storageFlags, trust } from "../flags.ts";
import { readTrust, streamName, expected } from "../issue.ts";
import { formatPairs } from "../output.ts";
import { key, openSigners, passphraseFile } from "../signing-keys.ts";
import type { Verb } from "../verb.ts";

const hourMs = 3_600_000;
const leastMs = 60_000;
const expires: Flag<number> = {
  ...textFlag("expires", {
    placeholder: "<hours>",
    text: "for how long runners believe it",
    fallback: "24h",
  }),
  from(texts, origin) {
    const last = texts.at(-1) ?? "24h";
    const ms = parseDuration(last);
    if (ms !== undefined && ms >= leastMs) return ms / hourMs;
    throw new RunnerError(
      "USAGE",
      `${origin}: expected a time such as 24h, at least 1m, got ${JSON.stringify(last)}`,
    );
  },
};
const runners = {
  ...trust,
  text: "what runners trust, with its timestamp role: the release is verified by it first; can be repeated; required",
};

/** `lockkeeper release timestamp` */
export const releaseTimestamp: Verb = {
  name: "release timestamp",
  about:
    "Vouches, with a key of the trust's timestamp role, that a stream's newest release is the newest, for hours. " +
    "Made for a schedule, every hour: runners whose trust has the role, and that were told no digest, take no release " +
    "without such word. It verifies the release first, and never takes back what was vouched for before.",
  parameters: [
    {
      name: "destination",
      text: "s3://bucket/prefix, gs://bucket/prefix or a folder; one stream each",
      isRequired: true,
    },
  ],
  flags: [streamName, key, passphraseFile, runners, expires, expected, ...storageFlags],
  examples: [
    {
      line: "lockkeeper release timestamp s3://releases/orders --stream orders --key awskms:///alias/freshness --trust trust.json",
      means: "every hour, from a schedule that may write this one object",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal, get, word } = invocation;
    const anchor = await readTrust(get(runners));
    if (anchor === undefined) {
      throw new RunnerError("USAGE", "no key is trusted: --trust <file> (or LOCKKEEPER_TRUST) is missing", {
        hint: "name the trust file of the runners: nobody vouches for what was not verified",
      });
    }
    const [wiring, { vouch }] = await Promise.all([context.wire(), import("../../release/publish/vouch.ts")]);
    const result = await vouch(
      {
        destination: await wiring.openSource(word("destination") ?? "", chooseStorage(invocation)),
        stream: get(streamName),
        keys: await openSigners(invocation),
        trust: anchor,
        expected: get(expected),
        expiresInHours: get(expires),
        now: new Date(),
      },
      signal,
    );
    const { digest, epoch, version, issued, signers, releaseExpires } = result;
    output.result(
      {
        stream: get(streamName),
        release: digest,
        epoch,
        version,
        issued: issued.toISOString(),
        expires: result.expires.toISOString(),
        signers,
        releaseExpires: releaseExpires.toISOString(),
      },
      () =>
        formatPairs([
          ["newest", digest],
          ["version", `${version} (epoch ${epoch})`],
          ["until", result.expires.toISOString()],
          ["signed by", signers.join("\n")],
          ["release", `expires at ${releaseExpires.toISOString()}`],
        ]),
    );
    return 0;
  },
};
