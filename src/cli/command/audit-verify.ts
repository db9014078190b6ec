import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import type { ExpectedLinks } from "../../audit/expected.ts";
import { RunnerError } from "../../error.ts";
import { listFlag } from "../flag.ts";
import { chooseTarget, databaseFlags } from "../flags.ts";
import type { Verb } from "../verb.ts";

const expect = listFlag("expect", {
  placeholder: "<seq:sha256>",
  text: "an entry that was written down elsewhere, and has to be there still; can be repeated",
});
const expectLog = listFlag("expect-log", {
  placeholder: "<file>",
  text: 'the same from a server\'s log or the output of "audit show --output json"; other lines are passed over; can be repeated',
});

/** `lockkeeper audit verify` */
export const auditVerify: Verb = {
  name: "audit verify",
  about:
    "Computes every link of a database's audit log anew, from the first entry to the newest, and names the first that is " +
    "wrong: altered, missing or put in. Whoever owns the table can also cut off its end, or write all of it anew: that is " +
    "found with what was written down elsewhere. A server writes every entry to its log; without a server, keep the head " +
    "that this prints. Needs no source.",
  parameters: [],
  flags: [expect, expectLog, ...databaseFlags],
  examples: [
    {
      line: "lockkeeper audit verify --target orders-prod",
      means: "is every link right, and what is the head",
    },
    {
      line: "lockkeeper audit verify --target orders-prod --expect 1204:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
      means: "and is the entry that was the head last week still there",
    },
    {
      line: "lockkeeper audit verify --target orders-prod --expect-log server.log",
      means: "is all there that the server has logged",
    },
  ],
  exits: [0, 2, 20, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const [wiring, { verifyAudit }, { ExpectedLinks: Links }] = await Promise.all([
      context.wire(),
      import("../../audit/verify.ts"),
      import("../../audit/expected.ts"),
    ]);
    const choice = chooseTarget(invocation);
    const expected = new Links(choice.target);
    for (const written of get(expect)) expected.add(written);
    for (const file of get(expectLog)) await addLog(file, expected);
    await using opened = await wiring.openDatabase(choice);
    const { url, audit } = opened.driver;
    const { entries, head, expected: found } = await verifyAudit(audit, expected.links, signal);
    output.result({ database: url, entries, head, expected: found }, () => {
      if (head === null) return `the audit log of ${url} is empty`;
      const compared = found === 0 ? "" : `, ${found} of them as written down elsewhere`;
      return `${output.paint.out.good("the audit log is whole")}: ${entries} entries${compared}\nhead  ${head.seq}:${head.sha256}`;
    });
    if (found === 0 && head !== null)
      output.note(
        "links alone do not show that the end was cut off, or all of it written anew: keep the head elsewhere, and give it with --expect",
      );
    return 0;
  },
};

/** @throws RunnerError `USAGE` - the file cannot be read, or no line of it is of this audit log */
async function addLog(path: string, expected: ExpectedLinks): Promise<void> {
  const before = expected.links.size;
  try {
    for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Infinity }))
      expected.addLine(line);
  } catch (cause) {
    if (cause instanceof RunnerError) throw cause;
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "unknown reason";
    throw new RunnerError("USAGE", `--expect-log: "${path}" cannot be read (${code})`, { cause });
  }
  if (expected.links.size === before) {
    throw new RunnerError("USAGE", `--expect-log: no line of "${path}" is an entry of this audit log`, {
      hint: 'give the JSON lines of lockkeeper serve that say "event":"audit", of this target',
    });
  }
}
