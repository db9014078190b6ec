import { placeName } from "../../history/foreign.ts";
import type { Flag } from "../flag.ts";
import { RunnerError } from "../../error.ts";
import { switchFlag, textFlag } from "../flag.ts";
import { reason, release, targetFlags, wait } from "../flags.ts";
import type { Invocation, Verb } from "../verb.ts";

const from = textFlag("from", {
  placeholder: "<tool|table>",
  text: "whose record to take where there are several: golang-migrate, goose, dbmate, rails, atlas, flyway, node-pg-migrate, umzug, migrate-mongo, or a table",
});
const table = textFlag("table", {
  placeholder: "<schema.name>",
  text: "the tool's table, where it has another name than usual or lies outside the search path",
});
const dryRun = switchFlag("dry-run", { text: "show what would be declared, and change nothing" });
const ignoreChecksums = switchFlag("ignore-checksums", {
  text: "take files whose checksum is not the one that the tool noted, as assumed",
  hasVariable: false,
});
/** With a word of its own, so that it can be ended too. */
const keepInStep: Flag<"on" | "off" | undefined> = {
  name: "keep-in-step",
  placeholder: "[on|off]",
  text: "write the tool's table with every later run, in the same transaction, so that the tool can take over again; off ends that",
  isRepeatable: false,
  choices: ["on", "off"],
  hasVariable: true,
  from(texts, origin) {
    const last = texts.at(-1);
    if (last === undefined) return undefined;
    if (last === "true" || last === "on") return "on";
    if (last === "off") return "off";
    throw new RunnerError("USAGE", `${origin}: expected on or off, got ${JSON.stringify(last)}`);
  },
};

/** `lockkeeper adopt` */
export const adopt: Verb = {
  name: "adopt",
  about:
    "Takes over from another migration tool: reads its table, compares it with the release, and declares as applied what " +
    "is applied. Runs no migration. Holds the tool's own lock meanwhile, shows what is exact and what only assumed, and " +
    "refuses what does not fit. Once there is a history, only what is kept in step can be adopted again.",
  parameters: [],
  flags: [from, table, dryRun, keepInStep, ignoreChecksums, reason, ...targetFlags, wait],
  examples: [
    {
      line: "lockkeeper adopt --source ./migrations --unsigned --dry-run",
      means: "see what golang-migrate's schema_migrations says, and change nothing",
    },
    {
      line: "lockkeeper adopt --keep-in-step --target orders-prod",
      means: "take over, and keep the old tool's table true: going back is possible",
    },
    {
      line: "lockkeeper adopt --from goose --format goose --source ./migrations --unsigned",
      means: "goose's goose_db_version, where there are other tools' tables too",
    },
    {
      line: "lockkeeper adopt --format dbmate --source ./db/migrations --unsigned --allow-late",
      means: "dbmate's (or Rails') schema_migrations, with a file that came late",
    },
    {
      line: "lockkeeper adopt --format flyway --table app.schema_version --source ./sql --unsigned",
      means: "Flyway's table under another name; its checksums are compared",
    },
    {
      line: "lockkeeper adopt --format atlas --source ./migrations --unsigned",
      means: "Atlas's atlas_schema_revisions",
    },
    {
      line: "lockkeeper adopt --from node-pg-migrate --source ./migrations --unsigned",
      means: "pgmigrations; files are matched by their names, 1700_users.up.sql for 1700_users",
    },
    {
      line: "lockkeeper adopt --from umzug --source ./migrations --unsigned",
      means: "umzug's SequelizeMeta, likewise",
    },
    {
      line: "lockkeeper adopt --keep-in-step off --target orders-prod",
      means: "the old tool is gone for good: its table is written to no more",
    },
  ],
  exits: [0, 2, 20, 30, 31],
  async run(invocation) {
    const { get } = invocation;
    if (get(keepInStep) === "off") return endInStep(invocation);
    const { output } = invocation;
    const [{ mend }, adoption, { describeAdoption, formatAdoption }] = await Promise.all([
      import("../mend.ts"),
      import("../../adopt/adopt.ts"),
      import("../show-adoption.ts"),
    ]);
    const wish = {
      from: get(from),
      table: get(table),
      keepsInStep: get(keepInStep) === "on" ? (true as const) : undefined,
      ignoresChecksums: get(ignoreChecksums),
      release: get(release),
    };
    const isPreview = get(dryRun);
    const { result: found, audit } = await mend(
      invocation,
      get(reason) ?? "",
      (declaration, target, options) =>
        isPreview
          ? adoption.previewAdoption(wish, target, options)
          : adoption.adopt(wish, declaration, target, options),
    );
    const end = isPreview ? "previewed" : "adopted";
    output.result({ ...describeAdoption(found, end), audit }, () =>
      formatAdoption(found, end, output.paint.out),
    );
    return found.finding.misfits.length === 0 ? 0 : 20;
  },
};

async function endInStep(invocation: Invocation): Promise<number> {
  const { output, get } = invocation;
  const [{ mend }, adoption] = await Promise.all([import("../mend.ts"), import("../../adopt/adopt.ts")]);
  const {
    result: { was },
    audit,
  } = await mend(invocation, get(reason) ?? "", adoption.endInStep);
  output.result(
    { inStep: null, was: was === null ? null : { tool: was.tool, table: placeName(was) }, audit },
    () =>
      was === null ? "no other tool's table was kept in step" : `${placeName(was)} is written to no more`,
  );
  return 0;
}
