import type { PublishResult } from "../../release/publish/publish.ts";
import type { Source } from "../../source/source.ts";
import { choiceFlag, countFlag, listFlag, named, textFlag } from "../flag.ts";
import { allowLate, chooseStorage, config, format, placeholders, storageFlags } from "../flags.ts";
import type { Wiring } from "../context.ts";
import { describeIssue, dryRun, expires, issuePairs, readTrust, signers, streamName } from "../issue.ts";
import { formatPairs } from "../output.ts";
import type { Paint } from "../output.ts";
import { key, openOptionalSigners, openSigners, passphraseFile } from "../signing-keys.ts";
import { statementOut, writeStatementOut } from "../statement-out.ts";
import type { Invocation, Verb } from "../verb.ts";

const environments = named(
  listFlag("environment", {
    placeholder: "<name>",
    text: "where the release may be applied; can be repeated",
    fallback: ["default"],
  }),
);
const epoch = countFlag("epoch", {
  placeholder: "<n>",
  text: "a higher one after a stolen key has published: versions begin again at 1",
  least: 1,
});
const follow = textFlag("follow", {
  placeholder: "<digest>",
  text: "the release to continue, where it is not the newest: what came after it is left out; none begins anew, to correct the first one",
  explained: "the newest",
});
const registryOf = listFlag("registry-of", {
  placeholder: "<url>",
  text: "releases of another service, for a folder with a .migration-registry.yaml: dependencies that lead round are refused; can be repeated",
});
const engineFlag = choiceFlag("engine", {
  text: "which database the migrations are for; default: mongodb where there are .json files and no .sql; to be said where all are programs",
  choices: ["postgres", "mongodb"],
});
const configFile = {
  ...config,
  text: "configuration file whose targets tell where the releases of other services are, beside --registry-of",
  fallback: "none",
};
/** New migrations that are named for a person. */
const shownAdded = 5;

/** `lockkeeper publish DIR DESTINATION` */
export const publish: Verb = {
  name: "publish",
  about:
    "Signs a folder of migrations as the next release of its stream and puts it into a bucket. " +
    "Nobody sees it before it is whole; publishing the same files twice changes nothing.",
  parameters: [
    {
      name: "folder",
      text: "the migrations: N_title.up.sql and N_title.down.sql, or .json for MongoDB",
      isRequired: true,
    },
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
    statementOut,
    environments,
    expires,
    epoch,
    follow,
    signers,
    allowLate,
    engineFlag,
    format,
    placeholders,
    registryOf,
    configFile,
    dryRun,
    ...storageFlags,
  ],
  examples: [
    {
      line: "lockkeeper publish ./migrations s3://releases/orders --stream orders --key orders",
      means: "sign and put into a bucket",
    },
    {
      line: "lockkeeper publish ./migrations ./bucket --stream orders --key orders --environment staging --environment production",
      means: "for two environments, into a folder",
    },
    {
      line: "lockkeeper publish ./migrations s3://releases/orders --stream orders --statement-out statement.json",
      means: "to be signed by a workflow's own identity, without a key",
    },
  ],
  exits: [0, 2, 20, 31, 32],
  async run(invocation) {
    const { context, output, signal, get, word } = invocation;
    const [wiring, release, { engineOfFolder }, { openReporter }] = await Promise.all([
      context.wire(),
      import("../../release/publish/publish.ts"),
      import("../../release/folder/folder-engine.ts"),
      import("../reporter.ts"),
    ]);
    // whoever has no key of their own signs what is written out, and adds it with "sign --bundle"
    const isForOthers = get(statementOut) !== undefined;
    const keys = await (isForOthers ? openOptionalSigners(invocation) : openSigners(invocation));
    const storage = chooseStorage(invocation);
    const folder = await wiring.openSource(word("folder") ?? "", storage);
    const engine = get(engineFlag) ?? (await engineOfFolder(folder, signal));
    const reporter = await openReporter(output);
    try {
      const result = await release.publishRelease(
        {
          folder,
          destination: await wiring.openSource(word("destination") ?? "", storage, { create: true }),
          stream: get(streamName),
          engine,
          format: await wiring.chooseFormat({ format: get(format), placeholders: get(placeholders) }, engine),
          environments: get(environments),
          expiresInDays: get(expires),
          epoch: get(epoch),
          follow: get(follow),
          keys,
          trust: await readTrust(get(signers)),
          otherServices: await openOtherServices(invocation, wiring),
          allowLate: get(allowLate),
          now: new Date(),
          dryRun: get(dryRun),
          emit(event) {
            if (event.kind === "warning") reporter.emit(event);
            else if (event.kind === "object.done") reporter.progress(event.done, event.total, null);
          },
        },
        signal,
      );
      reporter.end();
      const { statement, ...told } = result;
      output.result(describeIssue(told, get(streamName)), () => formatPublished(result, output.paint.out));
      if (statement !== null) await writeStatementOut(invocation, statement);
      if (result.outcome === "unsigned") {
        const command = `lockkeeper sign ${word("destination") ?? ""} --release ${result.digest}`;
        const signature = keys.length === 0 ? "--bundle <file>" : "--key <key>";
        output.note(`whoever signs next: ${command} ${signature} --trust <file>`);
      }
      return 0;
    } finally {
      reporter.end();
    }
  },
};

async function openOtherServices({ get }: Invocation, wiring: Wiring): Promise<readonly Source[]> {
  const file = get(configFile);
  const storage = chooseStorage({ get });
  const [named, configured] = await Promise.all([
    Promise.all(get(registryOf).map((url) => wiring.openSource(url, storage))),
    file === undefined ? [] : wiring.openOtherReleases(file, get(streamName)),
  ]);
  const urls = new Set(named.map(({ url }) => url));
  return [...named, ...configured.filter(({ url }) => !urls.has(url))];
}

function formatPublished(result: PublishResult, paint: Paint): string {
  const [more, some] = [result.added.length - shownAdded, result.added.slice(0, shownAdded).join(", ")];
  const added = result.added.length === 0 ? "none" : more > 0 ? `${some} and ${more} more` : some;
  return formatPairs([
    ...issuePairs(result, `${result.migrations}, new: ${added}`, paint),
    [
      "objects",
      result.outcome === "published"
        ? `${result.uploaded} written, ${result.present} there already`
        : undefined,
    ],
  ]);
}
