import { RunnerError } from "../../error.ts";
import { parseDigest } from "../../migration/checksum.ts";
import { emptyChain, formatChainEnd, parseChainEnd } from "../../release/chain.ts";
import type { Wanted } from "../../status/await-applied.ts";
import { durationFlag, textFlag } from "../flag.ts";
import { chooseTarget, streamFlags } from "../flags.ts";
import { formatPairs } from "../output.ts";
import type { Invocation, Verb } from "../verb.ts";

const release = textFlag("release", {
  placeholder: "<digest>",
  text: "until exactly this release, sha256:…, is the one applied last, and whole",
});
const expectChain = textFlag("expect-chain", {
  placeholder: "<length:head>",
  text: 'until everything up to this place is applied, as "chain" of publish, release show and status tells it; more may have followed',
});
const timeout = durationFlag("timeout", {
  text: "how long to wait; 0 asks once",
  fallback: "10m",
});

const defaultTimeoutMs = 600_000;
const pollMs = 1_000;

/** `lockkeeper wait` */
export const wait: Verb = {
  name: "wait",
  about:
    "Waits until the database has what an application needs, then exits 0. Asks the database alone, and needs no more than " +
    "USAGE on the schema lockkeeper and SELECT on its tables streams and history: no bucket, no key and no expiry can keep a pod from starting.",
  parameters: [],
  flags: [release, expectChain, timeout, ...streamFlags],
  examples: [
    {
      line: "lockkeeper wait --expect-chain 3:60f480ce983f3c5a09c0a43e8f10f4dfce66c483d84b74cb81ec68c3d81e639b --stream orders",
      means: "in an init container; the CD tool takes the place from the output of publish",
    },
    {
      line: "lockkeeper wait --release sha256:… --stream orders --timeout 30m",
      means: "in a pipeline, until a release is there",
    },
  ],
  exits: [0, 2, 31, 32, 143],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const wanted = readWanted(invocation);
    const [wiring, { awaitApplied }] = await Promise.all([
      context.wire(),
      import("../../status/await-applied.ts"),
    ]);
    await using opened = await wiring.openDatabase(chooseTarget(invocation));
    const { position, completed } = await awaitApplied(opened.driver, opened.stream, wanted, {
      timeoutMs: get(timeout) ?? defaultTimeoutMs,
      pollMs,
      signal,
      onWaiting: ({ message, hint }) =>
        output.note(`waiting: ${message}${hint === undefined ? "" : `; ${hint}`}`),
    });
    const chain = formatChainEnd({
      length: position.length,
      head: position.chain ?? emptyChain(opened.stream),
    });
    output.result({ stream: opened.stream, version: position.version, chain, completed }, () =>
      formatPairs([
        ["stream", opened.stream],
        ["version", position.version ?? "0"],
        ["chain", chain],
        ["release", completed ?? undefined],
      ]),
    );
    return 0;
  },
};

function readWanted({ get }: Invocation): Wanted {
  const [digest, place] = [get(release), get(expectChain)];
  if ((digest === undefined) === (place === undefined)) {
    throw new RunnerError("USAGE", "needs either --release <digest> or --expect-chain <length:head>", {
      hint: '"chain" in the output of publish and of release show is what --expect-chain takes',
    });
  }
  if (digest !== undefined) {
    if (parseDigest(digest) !== undefined) return { kind: "release", digest };
    throw new RunnerError("USAGE", "--release: expected sha256: and 64 lower-case hex digits");
  }
  const end = parseChainEnd(place ?? "");
  if (end !== undefined) return { kind: "chain", end };
  throw new RunnerError("USAGE", "--expect-chain: expected a number, a colon and 64 lower-case hex digits", {
    hint: '"chain" in the output of publish and of release show is what it takes',
  });
}
