import { RunnerError } from "../../error.ts";
import { parseDuration } from "../../migration/duration.ts";
import { type Flag, textFlag } from "../flag.ts";
import { chooseTarget, databaseFlags, last } from "../flags.ts";
import type { Verb } from "../verb.ts";

const run = textFlag("run", { placeholder: "<id>", text: "only what is about this run" });
const of = textFlag("of", {
  placeholder: "<name>",
  text: "only what is about this target or stream; a database may hold several",
});
const since: Flag<Date | undefined> = {
  name: "since",
  placeholder: "<time>",
  text: "only what is not older: 2026-11-21, 2026-11-21T05:00:00Z, or 24h",
  isRepeatable: false,
  hasVariable: true,
  from(texts, origin) {
    const text = texts.at(-1);
    if (text === undefined) return undefined;
    const ms = parseDuration(text);
    const time = ms === undefined ? new Date(text) : new Date(Date.now() - ms);
    const isTime = ms !== undefined || /^\d{4}-\d{2}-\d{2}(T[\d:.]+Z)?$/.test(text);
    if (isTime && !Number.isNaN(time.getTime())) return time;
    throw new RunnerError(
      "USAGE",
      `${origin}: expected a time in UTC or a duration, got ${JSON.stringify(text)}`,
      {
        hint: "for instance 2026-11-21T05:00:00Z, or 24h for the last day",
      },
    );
  },
};

/** `lockkeeper audit show` */
export const auditShow: Verb = {
  name: "audit show",
  about:
    "What was decided and done, by whom: requests allowed and refused, runs as they begin and end, what people declared or " +
    "did by hand. With --output json one JSON document a line, with all fields. Needs no source. Whether the log is as it " +
    "was written, audit verify tells.",
  parameters: [],
  flags: [last, run, of, since, ...databaseFlags],
  examples: [
    { line: "lockkeeper audit show --target orders-prod", means: "the newest 50 entries" },
    {
      line: "lockkeeper audit show --run orders-prod.01JDZ… --target orders-prod",
      means: "one run, start to end",
    },
    {
      line: "lockkeeper audit show --since 24h --last 100000 --target orders-prod --output json",
      means: "the last day, for a program",
    },
  ],
  exits: [0, 2, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const [wiring, { selectEntries }, { describeEntry, formatEntries }] = await Promise.all([
      context.wire(),
      import("../../audit/select.ts"),
      import("../show-audit.ts"),
    ]);
    await using opened = await wiring.openDatabase(chooseTarget(invocation));
    const wanted = { last: get(last) ?? 50, run: get(run), of: get(of), since: get(since) };
    const entries = await selectEntries(opened.driver.audit, wanted, signal);
    output.results(entries.map(describeEntry), () => formatEntries(entries, output.paint.out));
    return 0;
  },
};
