import { RunnerError } from "../../error.ts";
import { recordFlag, listFlag, textFlag } from "../flag.ts";
import {
  expiryAfter,
  readCounts,
  readIds,
  readNamedKeys,
  releaseKeys,
  releaseThreshold,
  rootExpires,
  rootKeys,
  rootThreshold,
  timestampKeys,
} from "../root-flags.ts";
import type { Verb } from "../verb.ts";

const out = textFlag("out", {
  placeholder: "<file>",
  text: "the document to write",
  explained: "3.root.json beside 2.root.json",
});
const addRoot = { ...rootKeys, text: "public key to add to the root role; can be repeated" };
const addRelease = { ...releaseKeys, text: "public key to add to every release rule; can be repeated" };
const addTimestamp = { ...timestampKeys, text: "public key to add to the timestamp role; can be repeated" };
const drop = listFlag("drop", {
  placeholder: "<file or id>",
  text: "public key, or its id, or oidc:<name>, that nothing is trusted to any more; can be repeated",
});
const epochs = recordFlag("begin-epoch", {
  placeholder: "<stream=n>",
  text: "the epoch that begins for a stream, after a stolen key has published; can be repeated",
});
const minVersions = recordFlag("min-version", {
  placeholder: "<stream=n>",
  text: "refuses a stream's releases with a lower version; can be repeated",
});
const revoke = listFlag("revoke", {
  placeholder: "<digest>",
  text: "release to refuse, whoever signed it; can be repeated",
});
const threshold = { ...rootThreshold, fallback: "as before" };
const releases = {
  ...releaseThreshold,
  text: `${releaseThreshold.text}, by every rule`,
  fallback: "as before",
};

/** `lockkeeper root next FILE` */
export const rootNext: Verb = {
  name: "root next",
  about:
    "Writes the root after FILE with these changes and a new expiry, unsigned. Anything else is changed in the file itself, before it is signed. " +
    "Then: root sign, by a threshold of the old root keys and one of the new, and root publish.",
  parameters: [{ name: "file", text: "the newest root: 1.root.json", isRequired: true }],
  flags: [
    out,
    addRoot,
    addRelease,
    addTimestamp,
    drop,
    threshold,
    releases,
    epochs,
    minVersions,
    revoke,
    rootExpires,
  ],
  examples: [
    {
      line: "lockkeeper root next 1.root.json --drop old-ci.pub --release-key new-ci.pub",
      means: "2.root.json, with another key for releases",
    },
    {
      line: "lockkeeper root next 2.root.json --drop ci.pub --release-key new.pub --begin-epoch orders=2 --revoke sha256:…",
      means: "after the key was stolen and used",
    },
  ],
  exits: [0, 2, 20],
  async run({ output, get, word }) {
    const [{ draftNextRoot }, { createRootFile, pathBeside, readRootFile }, show, { readRootText }] =
      await Promise.all([
        import("../../release/root/root-draft.ts"),
        import("../../release/root/root-file.ts"),
        import("../show-root.ts"),
        import("../../release/root/root.ts"),
      ]);
    const { root, path, document } = await readRootFile(word("file") ?? "");
    const target = get(out) ?? pathBeside(path, root.version + 1);
    if (target === undefined) {
      throw new RunnerError("USAGE", `--out <file> is missing, and "${path}" does not tell a name`, {
        hint: "documents that are called 1.root.json are followed by 2.root.json",
      });
    }
    const next = draftNextRoot(readRootText(document), {
      addRootKeys: await readNamedKeys(get(addRoot)),
      addReleaseKeys: await readNamedKeys(get(addRelease)),
      addTimestampKeys: await readNamedKeys(get(addTimestamp)),
      drop: await readIds(get(drop)),
      rootThreshold: get(threshold),
      releaseThreshold: get(releases),
      epochs: readCounts(get(epochs), "begin-epoch"),
      minVersions: readCounts(get(minVersions), "min-version"),
      revoke: get(revoke),
      expires: expiryAfter(get(rootExpires)),
    });
    await createRootFile(target, next);
    const review = { ...(await readRootFile(target)), previous: root };
    output.result({ file: target, ...show.describeRoot(review) }, () =>
      show.formatRoot(review, output.paint.out),
    );
    output.note(`${target}  not signed yet: lockkeeper root sign ${target} --key <key>`);
    return 0;
  },
};
