import { countFlag, named, listFlag, required, textFlag } from "../flag.ts";
import {
  expiryAfter,
  readNamedKeys,
  releaseKeys,
  releaseThreshold,
  rootExpires,
  rootKeys,
  rootThreshold,
  timestampKeys,
} from "../root-flags.ts";
import type { Verb } from "../verb.ts";

const org = required(
  named(
    textFlag("org", {
      placeholder: "<name>",
      text: "whose root it is, a name of its own for every root that these people keep; it never changes",
    }),
  ),
);
const version = countFlag("root-version", {
  placeholder: "<n>",
  text: "where to begin; in place of a root that was stolen, a number far above it, so that no database takes it for an older one",
  fallback: 1,
  least: 1,
});
const streams = named(
  listFlag("stream", { placeholder: "<name>", text: "release stream; required, can be repeated" }),
);
const environments = named(
  listFlag("environment", {
    placeholder: "<name>",
    text: "where its releases may be applied; can be repeated",
    fallback: ["default"],
  }),
);
const threshold = { ...rootThreshold, fallback: "more than half of them" };
const releases = { ...releaseThreshold, fallback: "1" };

/** `lockkeeper root new FILE` */
export const rootNew: Verb = {
  name: "root new",
  about:
    "Writes the first root of an organisation: who signs releases, and who may say so. Its file is what runners pin, so it needs no " +
    "signature. Read it, edit it if you like, put it into the runners' configuration and keep its root keys offline; from then on " +
    "who is trusted changes without a deployment: root next, root sign, root publish.",
  parameters: [{ name: "file", text: "the document to write: 1.root.json", isRequired: true }],
  flags: [
    org,
    streams,
    environments,
    rootKeys,
    threshold,
    releaseKeys,
    releases,
    timestampKeys,
    version,
    rootExpires,
  ],
  examples: [
    {
      line: "lockkeeper root new 1.root.json --org acme --stream orders --root-key alice.pub --root-key bob.pub --release-key ci.pub",
      means: "alice and bob replace it together, the pipeline signs releases",
    },
    {
      line: "lockkeeper up --source s3://releases/orders --stream orders --trust 1.root.json",
      means: "pins it; in a configuration: trust: { prod: { root: 1.root.json } }",
    },
  ],
  exits: [0, 2, 20],
  async run({ output, get, word }) {
    const [{ draftFirstRoot }, { createRootFile, readRootFile }, { describeRoot, formatRoot }] =
      await Promise.all([
        import("../../release/root/root-draft.ts"),
        import("../../release/root/root-file.ts"),
        import("../show-root.ts"),
      ]);
    const path = word("file") ?? "";
    const document = draftFirstRoot({
      org: get(org),
      version: get(version),
      streams: get(streams),
      environments: get(environments),
      rootKeys: await readNamedKeys(get(rootKeys)),
      rootThreshold: get(threshold),
      releaseKeys: await readNamedKeys(get(releaseKeys)),
      releaseThreshold: get(releases),
      timestampKeys: await readNamedKeys(get(timestampKeys)),
      expires: expiryAfter(get(rootExpires)),
    });
    await createRootFile(path, document);
    const review = { ...(await readRootFile(path)), previous: undefined };
    output.result({ file: path, ...describeRoot(review) }, () => formatRoot(review, output.paint.out));
    output.note(`${path}  pin it in your runners: --trust ${path}, or root: in a trust of the configuration`);
    if (review.root.signers.keys.length === 1)
      output.note(
        output.paint.err.warn("one root key: if it is lost, every runner needs a new root by hand"),
      );
    return 0;
  },
};
