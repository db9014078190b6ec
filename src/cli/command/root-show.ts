import { RunnerError } from "../../error.ts";
import { chooseStorage, source, storageFlags } from "../flags.ts";
import { textFlag } from "../flag.ts";
import { readPrevious } from "../root-flags.ts";
import type { Invocation, Verb } from "../verb.ts";

const bucket = { ...source, text: `${source.text}; shows the newest root there` };
const pinned = textFlag("trust", {
  placeholder: "<file>",
  text: "the root that runners pin: what is under --source is proven from it",
});

/** `lockkeeper root show [FILE]` */
export const rootShow: Verb = {
  name: "root show",
  about:
    "Shows whom a root trusts with what, what is new in it, and who has signed it: a document of yours, or the newest one under a source, " +
    "proven from the root that runners pin.",
  parameters: [{ name: "file", text: "a document: 2.root.json", isRequired: false }],
  flags: [bucket, pinned, ...storageFlags],
  examples: [
    { line: "lockkeeper root show 2.root.json", means: "a document, compared with 1.root.json beside it" },
    {
      line: "lockkeeper root show --source s3://releases/orders --trust 1.root.json",
      means: "what a runner follows now",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { output, word } = invocation;
    const path = word("file");
    const { describeRoot, formatRoot } = await import("../show-root.ts");
    if (path !== undefined) {
      const { readRootFile } = await import("../../release/root/root-file.ts");
      const file = await readRootFile(path);
      const review = { ...file, previous: await readPrevious(file, undefined) };
      output.result({ file: path, ...describeRoot(review) }, () => formatRoot(review, output.paint.out));
      return 0;
    }
    const { review, url } = await walk(invocation);
    output.result({ url, ...describeRoot(review) }, () => formatRoot(review, output.paint.out));
    if (review.root.expires <= new Date())
      output.note(
        output.paint.err.bad(`it expired at ${review.root.expires.toISOString()}: runners refuse it`),
      );
    return 0;
  },
};

/** As a runner would that has seen no root but the pinned one. */
async function walk(invocation: Invocation) {
  const { context, get, signal } = invocation;
  const [url, file] = [get(bucket), get(pinned)];
  if (url === undefined || file === undefined) {
    throw new RunnerError("USAGE", "name a document, or --source <url> and --trust <file>", {
      hint: "a root from a bucket proves nothing by itself: --trust names the one that runners pin",
    });
  }
  const [wiring, { walkRoots }, { readPinnedRoot }, { noKnownRoots }, { readEnvelopes }] = await Promise.all([
    context.wire(),
    import("../../release/root/root-walk.ts"),
    import("../../release/trust/trust-file.ts"),
    import("../../release/trust/anchor.ts"),
    import("../../release/envelope.ts"),
  ]);
  const opened = await wiring.openSource(url, chooseStorage(invocation));
  const { root } = await readPinnedRoot(file);
  const { newest, roots, files } = await walkRoots(root, { source: opened, known: noKnownRoots }, signal);
  const last = files.at(-1);
  const envelopes = last === undefined ? [] : readEnvelopes(Buffer.from(last.bundles));
  return { url: opened.url, review: { root: newest, envelopes, previous: roots.at(-2) } };
}
