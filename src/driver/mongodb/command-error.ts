import { MongoError, MongoNetworkError, MongoServerError, MongoWriteConcernError } from "mongodb";
import * as v from "valibot";

import { RunnerError } from "../../error.ts";
import { withoutValues } from "./error-text.ts";

/** What the server said of a command that failed, as far as it may be shown: nothing of documents. */
export interface CommandError {
  readonly code: number | undefined;
  readonly codeName: string | undefined;
  /** without what it quotes of documents and commands */
  readonly message: string;
  /** documents or statements of the command that were not done, where it told which; the others were */
  readonly writeErrors: number | undefined;
  /** it took effect on the primary; the others have not confirmed that it will stay */
  readonly isUnconfirmed: boolean;
}

/**
 * What the driver answers for success although it is none: `writeErrors` of a raw command.
 */
class WriteErrors extends Error {
  readonly error: CommandError;

  constructor(error: CommandError) {
    super(`write errors: ${error.message}`);
    this.error = error;
  }
}

const reportedError = v.object({
  code: v.optional(v.number()),
  codeName: v.optional(v.string()),
  errmsg: v.optional(v.string()),
});
const reply = v.object({
  writeErrors: v.optional(v.array(reportedError)),
  writeConcernError: v.optional(reportedError),
  nErrors: v.optional(v.number()),
});

/**
 * Throws where a reply says `ok: 1` and yet that something was not done.
 *
 * @throws WriteErrors
 */
export function assertDone(answer: unknown): void {
  const { writeErrors = [], writeConcernError, nErrors = 0 } = v.parse(reply, answer);
  const [first] = writeErrors;
  if (first !== undefined) throw new WriteErrors(readError(first, { writeErrors: writeErrors.length }));
  if (nErrors > 0)
    throw new WriteErrors(readError({ errmsg: "some of its writes failed" }, { writeErrors: nErrors }));
  if (writeConcernError !== undefined)
    throw new WriteErrors(readError(writeConcernError, { isUnconfirmed: true }));
}

/** The server's own word on a failed command; undefined where the network failed, or we did. */
export function commandError(thrown: unknown): CommandError | undefined {
  if (thrown instanceof WriteErrors) return thrown.error;
  if (!(thrown instanceof MongoServerError)) return undefined;
  if (thrown instanceof MongoWriteConcernError) {
    const answer = v.safeParse(reply, thrown.result);
    const [first] = answer.success ? (answer.output.writeErrors ?? []) : [];
    if (first !== undefined) return readError(first, { writeErrors: 1 });
  }
  return readError(
    {
      ...(typeof thrown.code === "number" ? { code: thrown.code } : {}),
      ...(thrown.codeName === undefined ? {} : { codeName: thrown.codeName }),
      errmsg: thrown.message,
    },
    { isUnconfirmed: thrown instanceof MongoWriteConcernError },
  );
}

/** Whether nobody knows if the command took effect: its answer was lost, or the server was stopped, or no longer the primary, under it. */
export function isOutcomeUnknown(thrown: unknown): boolean {
  const error = commandError(thrown);
  if (error !== undefined) return error.code !== undefined && unavailable.has(error.code);
  return thrown instanceof MongoError || isCut(thrown);
}

/** Whether the connection to the server failed, and not the command. */
export function isNetworkLoss(thrown: unknown): boolean {
  return (
    thrown instanceof MongoNetworkError ||
    (thrown instanceof MongoError && commandError(thrown) === undefined)
  );
}

/** Whether the same command may succeed a little later: it met another's lock, write or index build. */
export function isConflict(thrown: unknown): boolean {
  const { code } = commandError(thrown) ?? {};
  return code !== undefined && conflicts.has(code);
}

/** Whether a transaction that failed so has left nothing, and may succeed when it is tried again. */
export function isTransient(thrown: unknown): boolean {
  return thrown instanceof MongoError && thrown.hasErrorLabel("TransientTransactionError");
}

/** A command that we stopped waiting for, because the run is to stop. */
function isCut(thrown: unknown): boolean {
  return thrown instanceof RunnerError;
}

function readError(told: v.InferOutput<typeof reportedError>, more: Partial<CommandError>): CommandError {
  const { code } = told;
  return {
    code,
    codeName: told.codeName ?? (code === undefined ? undefined : codeNames.get(code)),
    message: withoutValues(told.errmsg ?? "no reason given", code),
    writeErrors: undefined,
    isUnconfirmed: false,
    ...more,
  };
}

/** Codes that this program looks at, by MongoDB's own names. */
export const errorCode = {
  namespaceNotFound: 26,
  indexNotFound: 27,
  namespaceExists: 48,
  maxTimeMsExpired: 50,
  duplicateKey: 11_000,
  interrupted: 11_601,
  noSuchTransaction: 251,
  transactionTooLarge: 257,
  operationNotSupportedInTransaction: 263,
  transactionExceededLifetime: 290,
  transactionTooLargeForCache: 388,
} as const;

/** The server is stopping, starting, or no longer the primary; what was under way may have been ended. */
const unavailable: ReadonlySet<number> = new Set([
  6, // HostUnreachable
  7, // HostNotFound
  89, // NetworkTimeout
  91, // ShutdownInProgress
  189, // PrimarySteppedDown
  9_001, // SocketException
  10_058, // LegacyNotPrimary
  10_107, // NotWritablePrimary
  11_600, // InterruptedAtShutdown
  11_602, // InterruptedDueToReplStateChange
  13_435, // NotPrimaryNoSecondaryOk
  13_436, // NotPrimaryOrSecondary
]);

const conflicts: ReadonlySet<number> = new Set([
  24, // LockTimeout
  46, // LockBusy
  112, // WriteConflict
  117, // ConflictingOperationInProgress
  246, // SnapshotUnavailable
  12_587, // BackgroundOperationInProgressForNamespace
]);

/** Write errors come without names. */
const codeNames: ReadonlyMap<number, string> = new Map([
  [2, "BadValue"],
  [9, "FailedToParse"],
  [14, "TypeMismatch"],
  [28, "PathNotViable"],
  [50, "MaxTimeMSExpired"],
  [64, "WriteConcernTimeout"],
  [66, "ImmutableField"],
  [91, "ShutdownInProgress"],
  [100, "UnsatisfiableWriteConcern"],
  [112, "WriteConflict"],
  [121, "DocumentValidationFailure"],
  [189, "PrimarySteppedDown"],
  [10_107, "NotWritablePrimary"],
  [11_000, "DuplicateKey"],
]);
