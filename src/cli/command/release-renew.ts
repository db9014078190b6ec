import { chooseStorage, storageFlags } from "../flags.ts";
import { listFlag, named, switchFlag } from "../flag.ts";
import {
  describeIssue,
  dryRun,
  expires,
  issuePairs,
  readTrust,
  signers,
  streamName,
  expected,
} from "../issue.ts";
import { formatPairs } from "../output.ts";
import { key, openSigners, passphraseFile } from "../signing-keys.ts";
import type { Verb } from "../verb.ts";

const environments = named(
  listFlag("environment", {
    placeholder: "<name>",
    text: "where the release may be applied from now on, if not where it may be now; can be repeated",
  }),
);
const force = switchFlag("force", { text: "also when more than half of the time is left" });

/** `lockkeeper release renew` */
export const releaseRenew: Verb = {
  name: "release renew",
  about:
    "Signs the newest release of a stream again, with the same files and a new expiry. Made for a schedule: " +
    "it does nothing while more than half of the time is left, and signers who renew on the same day (UTC) sign the same release. " +
    "What is renewed must itself satisfy --trust; without it, each --key must have signed it.",
  parameters: [
    {
      name: "destination",
      text: "s3://bucket/prefix, gs://bucket/prefix or a folder; one stream each",
      isRequired: true,
    },
  ],
  flags: [
    streamName,
    key,
    passphraseFile,
    environments,
    expires,
    signers,
    expected,
    force,
    dryRun,
    ...storageFlags,
  ],
  examples: [
    {
      line: "lockkeeper release renew s3://releases/orders --stream orders --key orders",
      means: "every week: signs anew when half of the 90 days are over",
    },
    {
      line: "lockkeeper release renew s3://releases/orders --stream orders --key new --trust trust.json --force",
      means: "after a change of keys: the same files, signed by the new one",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal, get, word } = invocation;
    const [wiring, { renewRelease }] = await Promise.all([
      context.wire(),
      import("../../release/publish/renew.ts"),
    ]);
    const environmentsAsked = get(environments);
    const result = await renewRelease(
      {
        destination: await wiring.openSource(word("destination") ?? "", chooseStorage(invocation)),
        stream: get(streamName),
        environments: environmentsAsked.length === 0 ? undefined : environmentsAsked,
        expiresInDays: get(expires),
        keys: await openSigners(invocation),
        trust: await readTrust(get(signers)),
        expected: get(expected),
        force: get(force),
        dryRun: get(dryRun),
        now: new Date(),
      },
      signal,
    );
    output.result(describeIssue(result, get(streamName)), () =>
      result.outcome === "unchanged"
        ? `not yet: release ${result.version} is good until ${result.expires.toISOString()}`
        : formatPairs(issuePairs(result, String(result.migrations), output.paint.out)),
    );
    if (result.outcome === "unsigned") {
      const command = `lockkeeper sign ${word("destination") ?? ""} --release ${result.digest}`;
      output.note(`whoever signs next: the same command today, or ${command} --key <key> --trust <file>`);
    }
    return 0;
  },
};
