import { writeFile } from "node:fs/promises";

import { RunnerError } from "../../error.ts";
import type { RootSignatures } from "../../release/root/root-file.ts";
import { listFlag, textFlag } from "../flag.ts";
import { readPrevious } from "../root-flags.ts";
import { key, openOptionalSigners, passphraseFile } from "../signing-keys.ts";
import type { RootReview } from "../show-root.ts";
import type { Verb } from "../verb.ts";

const previousFile = textFlag("previous", {
  placeholder: "<file>",
  text: "the root before, to show what changes and whose signatures are still needed",
  explained: "1.root.json beside 2.root.json",
});
const statementOut = textFlag("statement-out", {
  placeholder: "<file>",
  text: "writes the exact bytes to sign, for another tool: cosign attest-blob --statement <file>",
});
const bundle = listFlag("bundle", {
  placeholder: "<file>",
  text: "a signature that another tool made over these bytes, as a Sigstore bundle: checked and added; can be repeated",
});

/** `lockkeeper root sign FILE` */
export const rootSign: Verb = {
  name: "root sign",
  about:
    "Signs a root document: 2.root.json, into 2.root.sigstore.jsonl beside it. Shows first what it says and what is new in it. " +
    "Give both files to the next signer: a threshold of the old root keys and one of the new have to sign. Without a key it only shows.",
  parameters: [{ name: "file", text: "the document: 2.root.json", isRequired: true }],
  flags: [key, passphraseFile, previousFile, bundle, statementOut],
  examples: [
    { line: "lockkeeper root sign 2.root.json --key alice", means: "adds the signature of a key file" },
    {
      line: "lockkeeper root sign 2.root.json --statement-out statement.json",
      means: "for a key on a token: cosign attest-blob --statement statement.json --bundle bob.json --sk …",
    },
    { line: "lockkeeper root sign 2.root.json --bundle bob.json", means: "adds what cosign made of it" },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { output, get, word, signal } = invocation;
    const [
      { readRootFile, signRootFile },
      { describeRoot, formatRootFacts, formatRootSignatures, isComplete },
    ] = await Promise.all([import("../../release/root/root-file.ts"), import("../show-root.ts")]);
    const path = word("file") ?? "";
    const file = await readRootFile(path);
    const previous = await readPrevious(file, get(previousFile));
    output.note(`${formatRootFacts({ ...file, previous }, output.paint.err)}\n`);
    const statement = get(statementOut);
    if (statement !== undefined) {
      const { writeRootStatement } = await import("../../release/root/root-statement.ts");
      await writeFile(statement, writeRootStatement(file.root, file.document)).catch((cause: unknown) => {
        throw new RunnerError("USAGE", `--statement-out: "${statement}" cannot be written`, { cause });
      });
    }
    const signatures = {
      keys: await openOptionalSigners(invocation),
      bundles: await readBundles(get(bundle)),
    };
    const known = [...file.root.signers.keys, ...(previous?.signers.keys ?? [])];
    const added = await signRootFile(file, signatures, known, signal);
    for (const { public: stranger } of signatures.keys.filter(({ public: { id } }) =>
      known.every((one) => one.id !== id),
    ))
      output.note(output.paint.err.warn(`${stranger.id} is no root key here: its signature counts nothing`));
    const after = { ...(await readRootFile(path)), previous };
    const review = { ...after, complete: isComplete(after) };
    output.result({ file: path, added, complete: review.complete, ...describeRoot(review) }, () =>
      [
        formatRootSignatures(review, output.paint.out),
        added === 0
          ? "nothing was signed"
          : `${added} ${added === 1 ? "signature" : "signatures"} added to ${review.bundlesPath}`,
        whatNext(path, review),
      ].join("\n"),
    );
    return 0;
  },
};

function whatNext(path: string, review: RootReview & { readonly complete: boolean }): string {
  if (review.complete)
    return `complete: lockkeeper root publish ${path} <destination> --trust <the root that runners pin>`;
  return review.envelopes.length === 0
    ? `not signed yet: lockkeeper root sign ${path} --key <key>`
    : "not complete yet: give both files to the next signer";
}

async function readBundles(paths: readonly string[]): Promise<RootSignatures["bundles"]> {
  if (paths.length === 0) return [];
  const [{ readForeignBundles }, { readSmallFile }] = await Promise.all([
    import("../../release/review/foreign-bundle.ts"),
    import("../../release/trust/small-file.ts"),
  ]);
  const read = await Promise.all(
    paths.map(async (path) => {
      const what = `"${path}"`;
      return readForeignBundles(await readSmallFile(path, "USAGE"), what).map((line) => ({ line, what }));
    }),
  );
  return read.flat();
}
