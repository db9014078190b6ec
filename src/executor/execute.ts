import type {
  LeasedSession,
  SessionSettings,
  StatementProgress,
  StatementStep,
  TransactionStep,
} from "../driver/driver.ts";
import { RunnerError } from "../error.ts";
import type { HistoryEntry } from "../history/entry.ts";
import { sha256Hex } from "../migration/checksum.ts";
import { decodeBody } from "../migration/decode.ts";
import { parseHeader } from "../migration/header.ts";
import { sqlToSend } from "../migration/unwrap-sql.ts";
import type { Plan, Step } from "../plan/plan.ts";
import type { Emit, RunEvent } from "./event.ts";

/** What the steps need besides the plan. */
export interface ExecuteOptions {
  /** verified bytes of every body of the plan, by sha256 */
  readonly bodies: ReadonlyMap<string, Buffer>;
  readonly signed: boolean;
  /** what an earlier attempt left half done; its checksums are compared before anything goes on after it */
  readonly unfinished: HistoryEntry | null;
  readonly lockTimeoutMs: number;
  readonly statementTimeoutMs: number;
  readonly appliedBy: string;
  readonly emit: Emit;
}

/** Bodies in one message: few enough that a cancel is quick, many enough that a far database costs little. */
const messageSteps = { first: 16, most: 256 };
const messageBytes = 512 * 1024;
/** milliseconds that one message should take; the next is larger or smaller by it */
const messageTargetMs = 300;

/**
 * Carries a plan out under a held lease, step after step, and stops at the first that fails.
 *
 * Between two messages it looks whether the run is to stop: the safe points.
 *
 * @returns why the first step that was not done failed; null when all are done
 * @throws RunnerError `LEASE_LOST`, `CANCELED`, `DEADLINE` - the run must stop here; what was done is in the history
 */
export async function execute(
  plan: Plan,
  session: LeasedSession,
  options: ExecuteOptions,
): Promise<RunnerError | null> {
  const settings = sessionSettings(options);
  const progress = { done: 0, total: plan.steps.length };
  let size = messageSteps.first;
  for (let index = 0; index < plan.steps.length;) {
    session.signal.throwIfAborted();
    const group = nextGroup(plan.steps, index, size);
    const [only] = group;
    if (only === undefined) break;
    const startedAt = performance.now();
    const failure =
      only.body.tx === "none"
        ? await executeStatements(only, session, settings, options, progress)
        : await executeTogether(group, session, settings, options, progress);
    if (failure !== null) return failure;
    index += group.length;
    size = nextSize(size, performance.now() - startedAt);
  }
  return null;
}

interface Progress {
  done: number;
  readonly total: number;
}

/** The next steps for one call: one outside transactions alone, or neighbours in transactions of their own up to the ceilings. */
function nextGroup(steps: readonly Step[], from: number, most: number): readonly Step[] {
  const first = steps[from];
  if (first === undefined || first.body.tx === "none") return steps.slice(from, from + 1);
  let end = from;
  for (let bytes = 0; end < steps.length && end - from < most; end += 1) {
    const step = steps[end];
    if (step === undefined || step.body.tx === "none") break;
    bytes += step.body.size;
    if (bytes > messageBytes && end > from) break;
  }
  return steps.slice(from, end);
}

function nextSize(size: number, tookMs: number): number {
  if (tookMs < messageTargetMs) return Math.min(size * 2, messageSteps.most);
  if (tookMs > messageTargetMs * 3) return Math.max(Math.floor(size / 2), 1);
  return size;
}

async function executeTogether(
  group: readonly Step[],
  session: LeasedSession,
  settings: SessionSettings,
  options: ExecuteOptions,
  progress: Progress,
): Promise<RunnerError | null> {
  for (const [index, step] of group.entries())
    announce(step, progress.done + index, progress.total, options.emit);
  assertNothingDone(group[0], options.unfinished);
  const { done, failure } = await session.applyInTransactions(
    group.map((step) => transactionStep(step, options)),
    settings,
  );
  for (const [index, { durationMs }] of done.entries()) {
    const step = group[index];
    if (step !== undefined) succeed(step, durationMs, progress, options.emit);
  }
  const failed = group[done.length];
  if (failure !== null && failed !== undefined) fail(failed, failure, options.emit);
  return failure;
}

async function executeStatements(
  step: Step,
  session: LeasedSession,
  settings: SessionSettings,
  options: ExecuteOptions,
  progress: Progress,
): Promise<RunnerError | null> {
  announce(step, progress.done, progress.total, options.emit);
  const prepared = statementStep(step, options);
  try {
    const { durationMs } = await session.applyStatements(prepared, settings, (progress) =>
      options.emit(statementEvent(prepared, progress)),
    );
    succeed(step, durationMs, progress, options.emit);
    return null;
  } catch (cause) {
    if (!(cause instanceof RunnerError) || session.signal.aborted) throw cause;
    if (cause.code === "LEASE_LOST" || cause.code === "INTERNAL") throw cause;
    fail(step, cause, options.emit);
    return cause;
  }
}

function statementEvent({ path, statements }: StatementStep, progress: StatementProgress): RunEvent {
  const of = { path, statements: statements.length };
  switch (progress.kind) {
    case "statement":
      return { kind: "statement.done", ...of, statement: progress.done };
    case "probed":
      return { kind: "statement.probed", ...of, statement: progress.statement, verdict: progress.verdict };
    case "backfill":
      return { ...progress, kind: "backfill.progress", path };
  }
}

function transactionStep(step: Step, options: ExecuteOptions): TransactionStep {
  const { text, header } = readBody(step, options);
  const { sql, offset } = sqlToSend(text);
  return {
    ...common(step, options),
    text,
    sql,
    sqlOffset: offset,
    alone: step.body.alone,
    ...limitsOf(header),
  };
}

function statementStep(step: Step, options: ExecuteOptions): StatementStep {
  const { bytes, text, header } = readBody(step, options);
  const statements = step.body.statements ?? [];
  assertSameBeginning(step, bytes, options.unfinished);
  const isAttempt = isAttemptAt(step, options.unfinished);
  if (isAttempt && header.backfill !== undefined && options.unfinished?.checkpoint?.kind === "sent")
    throw changedKind(step, "publish it without its backfill, and that as a migration of its own");
  return {
    ...common(step, options),
    text,
    bytes,
    statements,
    resumeAt: step.resumeAt,
    unfinished: isAttempt ? options.unfinished : null,
    backfill: header.backfill,
    ...limitsOf(header),
  };
}

function isAttemptAt({ migration, direction }: Step, unfinished: HistoryEntry | null): boolean {
  return unfinished?.seq === migration.seq && unfinished.direction === direction;
}

function common(
  step: Step,
  options: ExecuteOptions,
): Pick<TransactionStep, "migration" | "direction" | "sha256" | "path" | "signed"> {
  return {
    migration: step.migration,
    direction: step.direction,
    sha256: step.body.sha256,
    path: step.body.path,
    signed: options.signed,
  };
}

function limitsOf(
  header: ReturnType<typeof parseHeader>,
): Pick<TransactionStep, "lockTimeoutMs" | "statementTimeoutMs"> {
  return { lockTimeoutMs: header.lockTimeoutMs, statementTimeoutMs: header.statementTimeoutMs };
}

function readBody(
  step: Step,
  options: ExecuteOptions,
): { bytes: Buffer; text: string; header: ReturnType<typeof parseHeader> } {
  const bytes = options.bodies.get(step.body.sha256);
  if (bytes === undefined)
    throw new RunnerError("INTERNAL", `the body of "${step.body.path}" was not fetched`);
  const text = decodeBody(bytes, step.body.path);
  return { bytes, text, header: parseHeader(text, step.body.path) };
}

/** A corrected migration goes on after its done statements only when those are what was done. */
function assertSameBeginning(step: Step, bytes: Buffer, unfinished: HistoryEntry | null): void {
  if (step.resumeAt === 0 || unfinished === null) return;
  const now = (step.body.statements ?? [])
    .slice(0, step.resumeAt)
    .map(({ offset, length }) => sha256Hex(bytes.subarray(offset, offset + length)));
  const changed = unfinished.statementChecksums.findIndex((checksum, index) => now[index] !== checksum);
  if (changed >= 0) throw changedBeginning(step, changed + 1);
}

/** A body in one transaction cannot go on in the middle of what was begun statement by statement. */
function assertNothingDone(step: Step | undefined, unfinished: HistoryEntry | null): void {
  if (step === undefined || !isAttemptAt(step, unfinished)) return;
  if (step.resumeAt > 0) throw changedBeginning(step, 1);
  if (unfinished?.checkpoint !== null)
    throw changedKind(step, "write -- lockkeeper: tx=none into its first line");
}

/** Only what runs statement by statement can find out what became of a statement that was cut off. */
function changedKind(step: Step, hint: string): RunnerError {
  return new RunnerError(
    "CHANGED_FILE",
    `a run was cut off in statement ${step.resumeAt + 1} of "${step.body.path}" as it was before; what it left cannot be told by the file as it is now`,
    {
      hint: `${hint}: then it is found out, and cleared away, before the file begins`,
      fields: { migration: step.body.path, version: step.migration.version, statement: step.resumeAt + 1 },
    },
  );
}

function changedBeginning(step: Step, statement: number): RunnerError {
  return new RunnerError(
    "CHANGED_FILE",
    `statement ${statement} of "${step.body.path}" was changed after it had taken effect`,
    {
      hint: `keep the first ${step.resumeAt} statements as they were, and correct only what follows`,
      fields: { migration: step.body.path, version: step.migration.version, statement },
    },
  );
}

function announce(step: Step, index: number, total: number, emit: Emit): void {
  emit({
    kind: "step.started",
    path: step.body.path,
    version: step.migration.version,
    direction: step.direction,
    index,
    total,
  });
}

function succeed(step: Step, durationMs: number, progress: Progress, emit: Emit): void {
  progress.done += 1;
  const { version } = step.migration;
  emit({
    kind: "step.succeeded",
    path: step.body.path,
    version,
    direction: step.direction,
    durationMs,
    done: progress.done,
    total: progress.total,
  });
}

function fail(step: Step, failure: RunnerError, emit: Emit): void {
  const { code, message, fields } = failure;
  emit({
    kind: "step.failed",
    path: step.body.path,
    version: step.migration.version,
    direction: step.direction,
    code,
    message,
    fields,
  });
}

function sessionSettings(options: ExecuteOptions): SessionSettings {
  return {
    lockTimeoutMs: options.lockTimeoutMs,
    statementTimeoutMs: options.statementTimeoutMs,
    appliedBy: options.appliedBy,
    onRetry: (path, attempt, sqlstate, delayMs, blocker) =>
      options.emit({ kind: "step.retried", path, attempt, sqlstate, delayMs, blocker }),
  };
}
