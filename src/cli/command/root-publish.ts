import { chooseStorage, storageFlags } from "../flags.ts";
import { pinnedRoot } from "../root-flags.ts";
import type { Verb } from "../verb.ts";

/** `lockkeeper root publish FILE DESTINATION` */
export const rootPublish: Verb = {
  name: "root publish",
  about:
    "Puts the next root where runners look for it, after proving it as they will: from the pinned root, by every root that is published, " +
    "to this one. Creates objects and replaces none. A root is found under each stream's prefix, so publish it to each.",
  parameters: [
    { name: "file", text: "the document, its signatures beside it: 2.root.json", isRequired: true },
    { name: "destination", text: "s3://bucket/prefix, gs://bucket/prefix or a folder", isRequired: true },
  ],
  flags: [pinnedRoot, ...storageFlags],
  examples: [
    {
      line: "lockkeeper root publish 2.root.json s3://releases/orders --trust 1.root.json",
      means: "the root after the pinned one",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, get, word, signal } = invocation;
    const [wiring, { publishRoot }, { readRootFile }, { readPinnedRoot }] = await Promise.all([
      context.wire(),
      import("../../release/root/root-publish.ts"),
      import("../../release/root/root-file.ts"),
      import("../../release/trust/trust-file.ts"),
    ]);
    const file = await readRootFile(word("file") ?? "");
    const pinned = await readPinnedRoot(get(pinnedRoot));
    const destination = await wiring.openSource(word("destination") ?? "", chooseStorage(invocation), {
      create: true,
    });
    const { root, outcome } = await publishRoot(
      { destination, pinned: pinned.root, file, now: new Date() },
      signal,
    );
    output.result(
      {
        outcome,
        version: root.version,
        org: root.org,
        expires: root.expires.toISOString(),
        url: destination.url,
      },
      () =>
        outcome === "published"
          ? `root ${root.version} is published under ${destination.url}, until ${root.expires.toISOString()}`
          : `root ${root.version} is there already`,
    );
    if (outcome === "published") {
      output.note(
        "runners follow it from now on, and a database remembers it with its next release: " +
          "publish or renew a release now, so that nobody can withhold this root from it",
      );
    }
    return 0;
  },
};
