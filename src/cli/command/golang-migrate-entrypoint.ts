import type { Adoption } from "../../adopt/adopt.ts";
import type { Emit } from "../../executor/event.ts";
import { placeName } from "../../history/foreign.ts";
import { compareVersions } from "../../migration/version.ts";
import type { Goal } from "../../plan/plan.ts";
import type { Limits, Target } from "../../runner.ts";
import { bringUp, type BroughtUp } from "../bring-up.ts";
import { runChange, whoAmI } from "../change.ts";
import { choiceFlag, switchFlag } from "../flag.ts";
import {
  chooseTarget,
  directDatabase,
  environment,
  limitFlags,
  onFailure,
  passwordFile,
  schema,
  storageFlags,
  stream,
} from "../flags.ts";
import { readScriptVariables, type ScriptWish } from "../golang-migrate-variables.ts";
import { openReporter } from "../reporter.ts";
import { showAhead, showResult } from "../show-result.ts";
import { terminationLog } from "../termination.ts";
import type { Invocation, Verb } from "../verb.ts";

const keepInStep = choiceFlag("keep-in-step", {
  text: "write golang-migrate's own table with every run, in the same transaction, so that the old image can be put back at any time; where there is none yet, make it",
  choices: ["on", "off"],
  fallback: "on",
});
const allowDown = switchFlag("allow-down", {
  text: "go down where TARGET_VERSION is below the database, as the script would; else the database is left alone",
  hasVariable: false,
});

/** `lockkeeper golang-migrate-entrypoint` */
export const golangMigrateEntrypoint: Verb = {
  name: "golang-migrate-entrypoint",
  about:
    "Stands in for the usual container script around golang-migrate, so that another image is enough: takes its variables DATABASE_URL, " +
    "MIGRATION_DIR (default /migrations; also s3://, gs://), TARGET_VERSION (default: all there are), MAX_RETRIES (30) and RETRY_INTERVAL (2 seconds), reads its files, " +
    "and takes over what its table says was applied. Choosing this verb is the consent to files without a signature: it is refused in the environment production, and once a signed release was applied. " +
    "A dirty database is never forced. Many replicas may start at once.",
  parameters: [],
  flags: [
    keepInStep,
    allowDown,
    passwordFile,
    directDatabase,
    schema,
    stream,
    environment,
    ...limitFlags,
    onFailure,
    ...storageFlags,
    terminationLog,
  ],
  examples: [
    {
      line: "DATABASE_URL=postgres://app@db/app MIGRATION_DIR=/migrations lockkeeper golang-migrate-entrypoint",
      means: "in the image in which golang-migrate and its script were",
    },
    {
      line: "MIGRATION_DIR=gs://releases/orders TARGET_VERSION=42 lockkeeper golang-migrate-entrypoint",
      means: "from a bucket, up to a version",
    },
  ],
  exits: [0, 2, 20, 21, 22, 30, 31, 32, 143],
  async run(invocation) {
    const wish = readScriptVariables(invocation.context.variables);
    const [wiring] = await Promise.all([invocation.context.wire(), import("../../runner.ts")]);
    const choice = chooseTarget(invocation);
    await using opened = await wiring.openTarget(
      {
        ...choice,
        database: wish.database,
        source: wish.source,
        isUnsigned: true,
        format: "golang-migrate",
        limits: {
          ...choice.limits,
          statementTimeoutMs: choice.limits.statementTimeoutMs ?? wish.statementTimeoutMs,
        },
      },
      "both",
    );
    const reporter = await openReporter(invocation.output);
    try {
      const end = await bring(invocation, opened.target, wish, reporter.emit);
      reporter.end();
      return end.kind === "ahead"
        ? showAhead(invocation, opened.target.name, end)
        : showResult(invocation, end.result);
    } finally {
      reporter.end();
    }
  },
};

async function bring(
  invocation: Invocation,
  target: Target,
  wish: ScriptWish,
  emit: Emit,
): Promise<BroughtUp> {
  const { signal, output, get } = invocation;
  return bringUp(target, {
    release: undefined,
    patienceMs: wish.retries * wish.intervalMs,
    pollMs: wish.intervalMs,
    signal,
    output,
    run: async (limits) => {
      const began = performance.now();
      const adoption = await takeOverRecord(
        invocation,
        { ...target, limits: endingWaits(limits) },
        wish,
        emit,
      );
      if (adoption !== undefined) output.note(describeTakeOver(adoption));
      const goal = await goalOf(target, wish, signal);
      if (goal.isDown && !get(allowDown)) {
        output.note(
          `warning: TARGET_VERSION ${wish.version ?? ""} is below the database, and nothing goes down by itself: --allow-down, or lockkeeper goto`,
        );
        return `version ${wish.version ?? ""}`;
      }
      const trigger = goal.isDown ? "cli" : "init";
      const left = lessTime(limits, performance.now() - began);
      return runChange(invocation, target, { goal: goal.goal, trigger, emit, limits: left });
    },
  });
}

/** What waits for the old image no longer than the deadline, which is a run's alone. */
function endingWaits(limits: Limits): Limits {
  const { waitMs, deadlineMs } = limits;
  return deadlineMs === 0 ? limits : { ...limits, waitMs: Math.min(waitMs, deadlineMs) };
}

function lessTime(limits: Limits, tookMs: number): Limits {
  const { deadlineMs } = limits;
  return deadlineMs === 0 ? limits : { ...limits, deadlineMs: Math.max(1, deadlineMs - tookMs) };
}

async function takeOverRecord(
  { signal, get }: Invocation,
  target: Target,
  { table }: ScriptWish,
  emit: Emit,
): Promise<Adoption | undefined> {
  const { takeOver } = await import("../../adopt/take-over.ts");
  return takeOver(
    { table, keepsInStep: get(keepInStep) === "on" },
    {
      reason: "golang-migrate-entrypoint",
      caller: { issuer: "cli", subject: whoAmI(), rule: null },
      trigger: "init",
    },
    target,
    { signal, emit, now: () => new Date() },
  );
}

/** `public.schema_migrations: 12 migrations taken over; kept in step` */
function describeTakeOver({ finding, changes, inStep }: Adoption): string {
  const count = `${changes.length} ${changes.length === 1 ? "migration" : "migrations"}`;
  return `${placeName(finding.place)}: ${count} taken over${inStep === null ? "" : "; kept in step"}`;
}

/** Up to the version that is wanted, or to it; the database is looked at after the taking over. */
async function goalOf(
  target: Target,
  { version }: ScriptWish,
  signal: AbortSignal,
): Promise<{ readonly goal: Goal; readonly isDown: boolean }> {
  if (version === undefined) return { goal: { kind: "latest" }, isDown: false };
  const { position } = await target.driver.state(target.stream, signal);
  const isDown = position.version !== null && compareVersions(version, position.version) < 0;
  return { goal: { kind: "version", version, allow: isDown ? "down" : "up" }, isDown };
}
