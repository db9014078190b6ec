import { MongoError, MongoNetworkError, MongoServerSelectionError } from "mongodb";

import { RunnerError, toRunnerError, type RunnerErrorCode } from "../../error.ts";
import { commandError, errorCode, isConflict, isOutcomeUnknown, type CommandError } from "./command-error.ts";

/** Whether the server could not be reached, was busy or gave no answer, so that the same question may be asked again. */
export function isAway(thrown: unknown): boolean {
  if (thrown instanceof Silence || thrown instanceof MongoNetworkError) return true;
  if (thrown instanceof MongoServerSelectionError) return true;
  const code = commandError(thrown)?.code;
  return (
    code !== undefined &&
    (code === errorCode.maxTimeMsExpired || isOutcomeUnknown(thrown) || isConflict(thrown))
  );
}

/** Whether a transaction may have committed, or may still do so: its answer was lost, or nobody has confirmed it. */
export function isCommitUnknown(thrown: unknown): boolean {
  if (thrown instanceof Silence) return true;
  return thrown instanceof MongoError && thrown.hasErrorLabel("UnknownTransactionCommitResult");
}

/** No answer came in time; the server may still work on it. */
export class Silence extends Error {
  override readonly name = "Silence";
}

/** Whether the server has no transactions, whatever it says of itself. */
export function lacksTransactions(thrown: unknown): boolean {
  const code = commandError(thrown)?.code;
  return code !== undefined && noTransactions.has(code);
}

const noTransactions: ReadonlySet<number> = new Set([
  20, // IllegalOperation: transaction numbers are only for replica sets
  59, // CommandNotFound: commitTransaction
  115, // CommandNotSupported
  238, // NotImplemented
  303, // FeatureNotSupported
]);

/** Any failure to reach or use the database, outside a body, under its public code. */
export function databaseFailure(thrown: unknown, shownUrl: string): RunnerError {
  if (thrown instanceof RunnerError) return thrown;
  const server = commandError(thrown);
  if (server !== undefined) {
    const { code, hint } = classify(server);
    const fields = server.code === undefined ? {} : { mongoCode: server.code };
    return new RunnerError(code, `${shownUrl}: ${server.message}`, { hint, fields, cause: thrown });
  }
  if (thrown instanceof Silence || thrown instanceof MongoError || isSystemError(thrown))
    return networkFailure(thrown, shownUrl);
  return toRunnerError(thrown);
}

/** Of Node: a name that cannot be looked up for `mongodb+srv`, a file of the URL that is not there. */
function isSystemError(thrown: unknown): thrown is Error {
  return thrown instanceof Error && "syscall" in thrown;
}

function classify({ code }: CommandError): { code: RunnerErrorCode; hint: string } {
  switch (code) {
    case 18: // AuthenticationFailed
    case 8_000: // AtlasError: bad auth
      return {
        code: "DATABASE_DENIED",
        hint: "check user, password and authSource: a user is known in the database in which it was made",
      };
    case 13: // Unauthorized
      return {
        code: "DATABASE_DENIED",
        hint: "grant the user readWrite on the database; its migrations may need dbAdmin as well",
      };
    case 10_107: // NotWritablePrimary
    case 13_435: // NotPrimaryNoSecondaryOk
    case 13_436: // NotPrimaryOrSecondary
      return { code: "DATABASE_READ_ONLY", hint: "connect to the primary: name the replica set in the URL" };
    case 14_031: // OutOfDiskSpace
    case 12_501: // quota exceeded
      return { code: "DATABASE_FULL", hint: "free disk space on the server and run again" };
    case 301: // the service has no retryable writes
      return { code: "DATABASE_UNSUPPORTED", hint: "write retryWrites=false into the URL" };
    case 59: // CommandNotFound
    case 115: // CommandNotSupported
    case 238: // NotImplemented
    case 303: // FeatureNotSupported
      return {
        code: "DATABASE_UNSUPPORTED",
        hint: "the server lacks something that lockkeeper needs; its documentation says which services have it",
      };
    default:
      return { code: "DATABASE_UNAVAILABLE", hint: "look at the server's log, then run again" };
  }
}

/** Node's codes for a certificate that does not hold, and OpenSSL's for a handshake that fails. */
const tlsCodes = /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|EPROTO|HOSTNAME_MISMATCH)/;

const networkReasons: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there",
  ENOTFOUND: "the host name is unknown",
  ENODATA: "the host name has no such record",
  EAI_AGAIN: "the host name cannot be looked up now",
  ECONNRESET: "the connection was closed",
  ETIMEDOUT: "no answer in time",
};

function networkFailure(thrown: Error, shownUrl: string): RunnerError {
  const [told, code] = rootOf(thrown);
  if (/ wire version /.test(told.message)) {
    const wire = /wire version (\d+)/.exec(told.message)?.[1];
    return new RunnerError(
      "DATABASE_UNSUPPORTED",
      `${shownUrl}: the server speaks wire version ${wire ?? "unknown"}`,
      {
        hint: "lockkeeper works with MongoDB 4.4 (wire version 9) and later",
        cause: thrown,
      },
    );
  }
  if (code === "ENOENT" || code === "EACCES") {
    return new RunnerError(
      "CONFIG",
      `${shownUrl}: a file that the URL names cannot be read: ${told.message}`,
      {
        cause: thrown,
      },
    );
  }
  if (tlsCodes.test(code)) {
    return new RunnerError("DATABASE_TLS", `${shownUrl}: no TLS connection: ${told.message}`, {
      hint: "check tls and tlsCAFile of the URL against the server's certificate",
      cause: thrown,
    });
  }
  const reason =
    networkReasons[code] ??
    (thrown instanceof Silence ? thrown.message : "no server answered as one that can be used");
  return new RunnerError("DATABASE_UNAVAILABLE", `${shownUrl}: ${reason}`, {
    hint: "check hosts and ports, the replica set's name, whether the server wants TLS, and that it is up",
    cause: thrown,
  });
}

/** What lies at the bottom: the driver packs a socket's error into what it knows of each server. */
function rootOf(thrown: Error): readonly [Error, string] {
  let error = thrown;
  for (let depth = 0; depth < 8; depth += 1) {
    const inner = innerOf(error);
    if (inner === undefined) break;
    error = inner;
  }
  const code = "code" in error && typeof error.code === "string" ? error.code : "";
  return [error, code];
}

function innerOf(error: Error): Error | undefined {
  if (error instanceof MongoServerSelectionError && error.reason !== undefined) {
    for (const server of error.reason.servers.values()) if (server.error !== null) return server.error;
    if (error.reason.compatibilityError !== undefined && error.reason.compatibilityError !== null)
      return new Error(error.reason.compatibilityError);
  }
  if (error instanceof AggregateError)
    return error.errors.find((each): each is Error => each instanceof Error);
  if (error instanceof MongoNetworkError || error instanceof MongoError)
    return error.cause instanceof Error ? error.cause : undefined;
  return error.cause instanceof Error ? error.cause : undefined;
}
