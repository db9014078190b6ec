import { RunnerError } from "../../error.ts";
import type { TrustAnchor } from "../../release/trust/anchor.ts";
import type { Inspection } from "../../release/review/inspect.ts";
import type { WritableSource } from "../../source/source.ts";
import type { Wiring } from "../context.ts";
import { listFlag, named, textFlag } from "../flag.ts";
import {
  chooseStorage,
  format,
  placeholders,
  release as anyRelease,
  storageFlags,
  trust as anyTrust,
} from "../flags.ts";
import { readTrust } from "../issue.ts";
import { describeSigned, describeWaiting, formatSigned, formatWaiting, notesOn } from "../show-signing.ts";
import { key, openOptionalSigners, passphraseFile } from "../signing-keys.ts";
import { statementOut, writeStatementOut } from "../statement-out.ts";
import type { Invocation, Verb } from "../verb.ts";

const release = {
  ...anyRelease,
  text: "the release to sign, as publish printed it: whoever signs says what, so there is no default",
  fallback: "shows what waits for signatures, and signs nothing",
};
const trust = {
  ...anyTrust,
  text: "what runners trust: the release becomes the newest once its signers meet the threshold, and not without this; can be repeated",
};
const stream = named(
  textFlag("stream", {
    placeholder: "<name>",
    text: "the stream that the release must be of",
    explained: "whatever the release says",
  }),
);
const bundle = listFlag("bundle", {
  placeholder: "<file>",
  text: "a signature that another tool made over these bytes, as a Sigstore bundle: checked and added; can be repeated",
});

const folder = textFlag("folder", {
  placeholder: "<dir>",
  text: "the migrations as you have reviewed them, in a checkout of your own: refuses a release that was not made of exactly these files",
});

/** `lockkeeper sign DESTINATION` */
export const sign: Verb = {
  name: "sign",
  about:
    "Adds a signature to a release that waits for more of them, and publishes it once they suffice. " +
    "Shows first, from the very bytes to sign, what the release changes; without --release it shows what waits, and signs nothing.",
  parameters: [
    {
      name: "destination",
      text: "s3://bucket/prefix, gs://bucket/prefix or a folder, where the release was put by publish",
      isRequired: true,
    },
  ],
  flags: [
    release,
    key,
    passphraseFile,
    bundle,
    statementOut,
    trust,
    stream,
    folder,
    format,
    placeholders,
    ...storageFlags,
  ],
  examples: [
    { line: "lockkeeper sign s3://releases/orders --trust prod.json", means: "what waits for signatures" },
    {
      line: "lockkeeper sign s3://releases/orders --release sha256:… --folder ./migrations --key awskms:///alias/bob --trust prod.json",
      means: "the second of two signers, who has reviewed ./migrations",
    },
    {
      line: "lockkeeper sign s3://releases/orders --release sha256:… --statement-out statement.json",
      means: "for cosign attest-blob --statement statement.json --bundle bob.json …",
    },
    {
      line: "lockkeeper sign s3://releases/orders --release sha256:… --bundle bob.json --trust prod.json",
      means: "adds what cosign made of it",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, get, word } = invocation;
    const wiring = await context.wire();
    const { withUnstored } = await import("../../release/review/unstored-release.ts");
    const bundles = await readBundles(invocation);
    const destination = withUnstored(
      await wiring.openSource(word("destination") ?? "", chooseStorage(invocation)),
      bundles,
    );
    const anchor = await readTrust(get(trust));
    const digest = get(release);
    if (digest === undefined) return showWaiting(invocation, destination, anchor);
    const review = await inspect(invocation, destination, anchor, digest);
    output.note(await reviewText(review, invocation));
    if (review.verdict.kind === "refused" && review.verdict.error.code !== "THRESHOLD")
      throw review.verdict.error;
    const [lie] = review.bodies?.misdescribed ?? [];
    if (lie !== undefined) {
      const { misdescribed } = await import("../../release/review/misdescribed.ts");
      throw misdescribed(lie, review.manifest.parser);
    }
    await compareWithFolder(invocation, wiring, review);
    await writeStatement(invocation, destination, digest);
    const keys = await openOptionalSigners(invocation);
    if (keys.length === 0 && bundles.length === 0) {
      const { describeInspection } = await import("../show-release.ts");
      output.result(
        { outcome: "shown", digest, review: describeInspection(review) },
        () => "nothing was signed",
      );
      return 0;
    }
    const { signRelease } = await import("../../release/review/sign.ts");
    const result = await signRelease(
      { destination, stream: get(stream), digest, keys, bundles, trust: anchor, now: new Date() },
      invocation.signal,
    );
    for (const note of notesOn(result)) output.note(output.paint.err.warn(note));
    const { describeInspection } = await import("../show-release.ts");
    output.result({ ...describeSigned(result), review: describeInspection(review) }, () =>
      formatSigned(result, output.paint.out),
    );
    return 0;
  },
};

/** Everything of it is fetched: nobody should sign what cannot be applied. */
async function inspect(
  { get, signal }: Invocation,
  source: WritableSource,
  anchor: TrustAnchor | undefined,
  digest: string,
): Promise<Inspection> {
  const { inspectRelease } = await import("../../release/review/inspect.ts");
  return inspectRelease(
    { source, trust: anchor, stream: get(stream), digest, withBodies: true, now: new Date() },
    signal,
  );
}

/** The migrations that are new, then what else there is to know. */
async function reviewText(review: Inspection, { output }: Invocation): Promise<string> {
  const { formatInspection, formatMigrations } = await import("../show-release.ts");
  const paint = output.paint.err;
  const labels = new Set(review.changes.added);
  const added = review.manifest.migrations.filter(({ path }) => labels.has(path));
  const table = added.length === 0 ? "" : `${formatMigrations(added, paint)}\n\n`;
  return `${table}${formatInspection(review, paint)}\n`;
}

async function compareWithFolder(
  invocation: Invocation,
  wiring: Wiring,
  { manifest }: Inspection,
): Promise<void> {
  const { get, output, signal } = invocation;
  const path = get(folder);
  if (path === undefined) return;
  const { assertSameFiles } = await import("../../release/folder/same-files.ts");
  const choice = { format: get(format), placeholders: get(placeholders) };
  await assertSameFiles(
    manifest,
    {
      folder: await wiring.openSource(path, chooseStorage(invocation)),
      format: await wiring.chooseFormat(choice, manifest.engine),
    },
    signal,
  );
  output.note(output.paint.err.good(`made of exactly the files in ${path}`));
}

async function showWaiting(
  invocation: Invocation,
  source: WritableSource,
  anchor: TrustAnchor | undefined,
): Promise<number> {
  const { output, get, signal, word } = invocation;
  const { findWaiting } = await import("../../release/review/waiting.ts");
  const { releases, unreadable } = await findWaiting(source, signal);
  const [only, ...more] = releases;
  if (only !== undefined && more.length === 0)
    output.note(await reviewText(await inspect(invocation, source, anchor, only.digest), invocation));
  if (unreadable > 0)
    output.note(
      output.paint.err.warn(`${unreadable} objects beside the releases are none, and were left out`),
    );
  const ranks = new Set(releases.map(({ statement: { epoch, version } }) => `${epoch}.${version}`));
  if (ranks.size < releases.length)
    output.note(output.paint.err.warn("several wait for one place, and only one of them can get it"));
  const named = more.length === 0 ? only?.digest : undefined;
  const command = `lockkeeper sign ${word("destination") ?? ""} --release ${named ?? "sha256:…"}`;
  const trusts = get(trust).length === 0 ? ["<file>"] : get(trust);
  if (get(key).length + get(bundle).length > 0 || get(statementOut) !== undefined) {
    throw new RunnerError(
      "USAGE",
      "--release <digest> (or LOCKKEEPER_RELEASE) is missing, so nothing was signed",
      {
        hint:
          only === undefined
            ? `nothing waits under ${source.url}; a release that is published already can be signed by its digest, too`
            : `look at the release, then say which one: ${command}`,
      },
    );
  }
  output.result({ waiting: releases.map(describeWaiting), unreadable }, () =>
    only === undefined
      ? `nothing waits for signatures under ${source.url}`
      : `${formatWaiting(releases, output.paint.out)}\n\nto sign: ${command} --key <key> ${trusts.map((file) => `--trust ${file}`).join(" ")}`,
  );
  return 0;
}

async function writeStatement(invocation: Invocation, source: WritableSource, digest: string): Promise<void> {
  const { get, signal } = invocation;
  if (get(statementOut) === undefined) return;
  const { readStoredLines } = await import("../../release/review/stored-release.ts");
  const { payload } = await readStoredLines(source, digest, signal);
  await writeStatementOut(invocation, payload);
}

async function readBundles({ get }: Invocation): Promise<readonly string[]> {
  const paths = get(bundle);
  if (paths.length === 0) return [];
  const [{ readForeignBundles }, { readSmallFile }] = await Promise.all([
    import("../../release/review/foreign-bundle.ts"),
    import("../../release/trust/small-file.ts"),
  ]);
  const read = await Promise.all(
    paths.map(async (path) => readForeignBundles(await readSmallFile(path, "USAGE"), `"${path}"`)),
  );
  return read.flat();
}
