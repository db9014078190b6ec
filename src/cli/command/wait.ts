import { RunnerError } from "../../error.ts";
import { parseDigest } from "../../migration/checksum.ts";
import { isVersion } from "../../migration/version.ts";
import { emptyChain, formatChainEnd, parseChainEnd } from "../../release/chain.ts";
import { describeWanted, type Wanted } from "../../status/await-applied.ts";
import { durationFlag, textFlag } from "../flag.ts";
import { chooseTarget, database, streamFlags, target } from "../flags.ts";
import { formatPairs } from "../output.ts";
import { terminationLog } from "../termination.ts";
import type { Invocation, Verb } from "../verb.ts";

const release = textFlag("release", {
  placeholder: "<digest>",
  text: "until this release, sha256:…, is the one applied last, and whole; with --url also where newer ones have followed it",
});
const expectChain = textFlag("expect-chain", {
  placeholder: "<length:head>",
  text: 'until everything up to this place is applied, as "chain" of publish, release show and status tells it; more may have followed',
});
const min = textFlag("min", {
  placeholder: "<version>",
  text: "until the database is at this version, or a higher one",
});
const timeout = durationFlag("timeout", {
  text: "how long to wait; 0 asks once",
  fallback: "10m",
});
const url = textFlag("url", {
  placeholder: "<url>",
  text: "ask a lockkeeper server in place of the database, https://migrate.example; --target is then the server's name for it",
});
const tokenFile = textFlag("token-file", {
  placeholder: "<file>",
  text: "with --url: file with the bearer token, such as a projected service account token; read anew for each request",
  explained: "$LOCKKEEPER_TOKEN",
});
const name = {
  ...target,
  text: "a target of the configuration file, in place of --database, --schema and --stream; with --url, of the server's",
};

const defaultTimeoutMs = 600_000;
/** milliseconds */
const pollMs = { database: 1_000, server: 3_000 };

/** `lockkeeper wait` */
export const wait: Verb = {
  name: "wait",
  about:
    "Waits until the database has what an application needs, then exits 0. Asks the database alone, and needs no more than " +
    "USAGE on the schema lockkeeper and SELECT on its tables streams and history: no bucket, no key and no expiry can keep a pod from starting. " +
    "With --url it asks a lockkeeper server, with a token that may do no more than look, and needs no right on the database at all.",
  parameters: [],
  flags: [
    release,
    expectChain,
    min,
    timeout,
    url,
    tokenFile,
    ...streamFlags.map((flag) => (flag.name === name.name ? name : flag)),
    terminationLog,
  ],
  examples: [
    {
      line: "lockkeeper wait --expect-chain 3:60f480ce983f3c5a09c0a43e8f10f4dfce66c483d84b74cb81ec68c3d81e639b --stream orders",
      means: "in an init container; the CD tool takes the place from the output of publish",
    },
    {
      line: "lockkeeper wait --release sha256:… --stream orders --timeout 30m",
      means: "in a pipeline, until a release is there",
    },
    {
      line: "lockkeeper wait --url https://migrate.example --token-file /run/token --target orders-prod --min 42",
      means: "in an init container without any database credential",
    },
  ],
  exits: [0, 2, 23, 31, 32, 143],
  async run(invocation) {
    const wanted = readWanted(invocation);
    const { output, ended } = invocation;
    const found = await (invocation.get(url) === undefined ? askDatabase : askServer)(invocation, wanted);
    output.result(found, () =>
      formatPairs([
        ["stream", found.stream],
        ["target", found.target],
        ["version", found.version ?? "0"],
        ["chain", found.chain ?? undefined],
        ["release", found.completed ?? undefined],
      ]),
    );
    const where = found.stream ?? found.target ?? "";
    ended({ kind: "done", words: `${where} ${found.version ?? "0"} (has ${describeWanted(wanted)})` });
    return 0;
  },
};

/** Where the database was found to be; of the database itself by its stream, of a server by its target. */
interface Found {
  readonly stream?: string;
  readonly target?: string;
  readonly version: string | null;
  readonly chain: string | null;
  readonly completed: string | null;
}

async function askDatabase(invocation: Invocation, wanted: Wanted): Promise<Found> {
  if (invocation.get(tokenFile) !== undefined) throw new RunnerError("USAGE", "--token-file goes with --url");
  const [wiring, { awaitApplied }] = await Promise.all([
    invocation.context.wire(),
    import("../../status/await-applied.ts"),
  ]);
  await using opened = await wiring.openDatabase(chooseTarget(invocation));
  const options = askOptions(invocation, pollMs.database);
  const { position, completed } = await awaitApplied(opened.driver, opened.stream, wanted, options);
  const { length, chain, version } = position;
  const end = formatChainEnd({ length, head: chain ?? emptyChain(opened.stream) });
  return { stream: opened.stream, version, chain: end, completed };
}

async function askServer(invocation: Invocation, wanted: Wanted): Promise<Found> {
  const { context, output, get } = invocation;
  const [base, asked] = [get(url) ?? "", get(name)];
  if (get(database) !== undefined)
    throw new RunnerError(
      "USAGE",
      "--url and --database do not go together: the one asks a server, the other a database",
    );
  if (asked === undefined)
    throw new RunnerError("USAGE", "--target <name> (or LOCKKEEPER_TARGET) is missing", {
      hint: "the name that the server's configuration gives the database",
    });
  const [{ openServer }, { chooseTokens }, { awaitGate }] = await Promise.all([
    import("../remote-server.ts"),
    import("../remote-token.ts"),
    import("../remote-gate.ts"),
  ]);
  const tokens = chooseTokens(
    { file: get(tokenFile), variable: undefined, audience: base },
    context.variables,
  );
  const server = openServer(base, tokens, (error) => output.waiting(error));
  const { position, completed } = await awaitGate(
    server,
    asked,
    wanted,
    askOptions(invocation, pollMs.server),
  );
  const { length, chain, version } = position;
  return {
    target: asked,
    version,
    chain: chain === null ? null : formatChainEnd({ length, head: chain }),
    completed,
  };
}

function askOptions({ get, signal, output }: Invocation, every: number) {
  return {
    timeoutMs: get(timeout) ?? defaultTimeoutMs,
    pollMs: every,
    signal,
    onWaiting: (why: RunnerError): void => output.waiting(why),
  };
}

function readWanted({ get }: Invocation): Wanted {
  const [digest, place, version] = [get(release), get(expectChain), get(min)];
  if ([digest, place, version].filter((one) => one !== undefined).length !== 1) {
    throw new RunnerError(
      "USAGE",
      "needs one of --release <digest>, --expect-chain <length:head> and --min <version>",
      { hint: '"chain" in the output of publish and of release show is what --expect-chain takes' },
    );
  }
  if (digest !== undefined) {
    if (parseDigest(digest) !== undefined) return { kind: "release", digest };
    throw new RunnerError("USAGE", "--release: expected sha256: and 64 lower-case hex digits");
  }
  if (version !== undefined) {
    if (isVersion(version)) return { kind: "version", min: version };
    throw new RunnerError("USAGE", "--min: expected digits, perhaps with dots between them");
  }
  const end = parseChainEnd(place ?? "");
  if (end !== undefined) return { kind: "chain", end };
  throw new RunnerError("USAGE", "--expect-chain: expected a number, a colon and 64 lower-case hex digits", {
    hint: '"chain" in the output of publish and of release show is what it takes',
  });
}
