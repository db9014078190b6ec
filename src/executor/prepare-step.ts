import type { FunctionStep, StatementStep, TransactionStep } from "../driver/session.ts";
import { RunnerError } from "../error.ts";
import type { HistoryEntry } from "../history/entry.ts";
import type { BodyLanguage } from "../migration/body-language.ts";
import { sha256Hex } from "../migration/checksum.ts";
import { decodeBody } from "../migration/decode.ts";
import type { Header } from "../migration/header.ts";
import type { Step } from "../plan/plan.ts";
import { loadCode } from "./load-code.ts";

/** What becomes part of a step besides what the plan says of it. */
export interface StepInput {
  /** what all bodies of the release are written in */
  readonly language: BodyLanguage;
  /** verified bytes of every body of the plan, by sha256 */
  readonly bodies: ReadonlyMap<string, Buffer>;
  readonly signed: boolean;
  /** what an earlier attempt left half done; its checksums are compared before anything goes on after it */
  readonly unfinished: HistoryEntry | null;
}

/** A body in one transaction, ready to send. */
export function transactionStep(step: Step, options: StepInput): TransactionStep {
  const { text, header } = readBody(step, options);
  const { sql, offset } = options.language.toSend(text);
  return {
    ...common(step, options),
    text,
    sql,
    sqlOffset: offset,
    alone: step.body.alone,
    ...limitsOf(header),
  };
}

/**
 * A body that runs statement by statement, ready to go on where an earlier attempt stopped.
 *
 * @throws RunnerError `CHANGED_FILE` - what that attempt has done is no longer what the file begins with
 */
export function statementStep(step: Step, options: StepInput): StatementStep {
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

/** A body that is a program, ready to be called. */
export function functionStep(step: Step, options: StepInput): Omit<FunctionStep, "onOutput"> {
  const bytes = bytesOf(step, options);
  const { path } = step.body;
  return {
    ...common(step, options),
    text: decodeBody(bytes, path),
    lockTimeoutMs: undefined,
    statementTimeoutMs: undefined,
    ...loadCode(bytes, path),
  };
}

function isAttemptAt({ migration, direction, body }: Step, unfinished: HistoryEntry | null): boolean {
  if (unfinished?.seq !== migration.seq || unfinished.direction !== direction) return false;
  // Repeatable ones have no other name than their path.
  return migration.seq !== 0 || unfinished.path === body.path;
}

function common(
  step: Step,
  options: StepInput,
): Pick<TransactionStep, "migration" | "direction" | "sha256" | "path" | "signed" | "covers"> {
  return {
    migration: step.migration,
    direction: step.direction,
    sha256: step.body.sha256,
    path: step.body.path,
    signed: options.signed,
    covers: step.covers,
  };
}

function limitsOf(header: Header): Pick<TransactionStep, "lockTimeoutMs" | "statementTimeoutMs"> {
  return { lockTimeoutMs: header.lockTimeoutMs, statementTimeoutMs: header.statementTimeoutMs };
}

function readBody(
  step: Step,
  options: StepInput,
): { readonly bytes: Buffer; readonly text: string; readonly header: Header } {
  const bytes = bytesOf(step, options);
  const { path } = step.body;
  const text = decodeBody(bytes, path);
  return { bytes, text, header: options.language.readHeader(bytes, text, path) };
}

function bytesOf({ body }: Step, { bodies }: StepInput): Buffer {
  const bytes = bodies.get(body.sha256);
  if (bytes !== undefined) return bytes;
  throw new RunnerError("INTERNAL", `the body of "${body.path}" was not fetched`);
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

/**
 * A body in one transaction cannot go on in the middle of what was begun statement by statement.
 *
 * @throws RunnerError `CHANGED_FILE`
 */
export function assertNothingDone(step: Step | undefined, unfinished: HistoryEntry | null): void {
  if (step === undefined || !isAttemptAt(step, unfinished)) return;
  if (step.resumeAt > 0) throw changedBeginning(step, 1);
  if (unfinished?.checkpoint !== null)
    throw changedKind(step, 'ask for it to run without one transaction, by "tx=none" in its header');
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
