import { RunnerError, toRunnerError, type ErrorFields, type RunnerErrorCode } from "../../error.ts";
import { withoutValues } from "./error-text.ts";
import { endsSession, notReadyYet, sqlstate } from "./sqlstate.ts";

/** What the server said, as far as it may be shown: no `detail` (it holds row data), no `where` (it holds SQL). */
export interface ServerError {
  readonly sqlstate: string;
  readonly message: string;
  readonly hint: string | undefined;
  /** code points from the start of the message that was sent, 1-based */
  readonly position: number | undefined;
  readonly fields: ErrorFields;
}

/** The server's own error inside whatever `pg` threw; undefined for a network failure. */
export function serverError(thrown: unknown): ServerError | undefined {
  if (
    !(thrown instanceof Error) ||
    !("severity" in thrown) ||
    !("code" in thrown) ||
    typeof thrown.code !== "string"
  )
    return undefined;
  const read = (name: string): string | undefined => {
    const value: unknown = Reflect.get(thrown, name);
    return typeof value === "string" && value !== "" ? value : undefined;
  };
  const fields: Record<string, string> = { sqlstate: thrown.code };
  for (const name of ["schema", "table", "column", "constraint"]) {
    const value = read(name);
    // `column` is the place in the file.
    if (value !== undefined) fields[name === "column" ? "tableColumn" : name] = value;
  }
  const position = Number(read("position"));
  return {
    sqlstate: thrown.code,
    message: withoutValues(thrown.message, thrown.code),
    hint: read("hint"),
    position: Number.isInteger(position) && position > 0 ? position : undefined,
    fields,
  };
}

/** Whether the connection is gone, so that nobody told us whether the last message took effect. */
export function isConnectionLoss(thrown: unknown): boolean {
  const server = serverError(thrown);
  if (server !== undefined) return endsSession(server.sqlstate);
  return thrown instanceof Error && !(thrown instanceof RunnerError) && !isDefect(thrown);
}

/** A mistake of ours, not the network's: Node and `pg` tell theirs by plain errors. */
function isDefect(thrown: unknown): boolean {
  return (
    thrown instanceof TypeError ||
    thrown instanceof RangeError ||
    thrown instanceof ReferenceError ||
    thrown instanceof SyntaxError
  );
}

/** Whether connecting again later may succeed without anybody changing anything. */
export function isNotReadyYet(thrown: unknown): boolean {
  const server = serverError(thrown);
  return server !== undefined && notReadyYet.has(server.sqlstate);
}

/** Whether the server did not take this user with this password. */
export function isRefusal(thrown: unknown): boolean {
  const code = serverError(thrown)?.sqlstate;
  return code === sqlstate.invalidPassword || code === sqlstate.invalidAuthorization;
}

/**
 * Any failure to reach or use the database, outside a body, under its public code.
 *
 * @param logInHint - what to do where a log-in was refused, in place of the usual
 */
export function databaseFailure(thrown: unknown, shownUrl: string, logInHint?: string): RunnerError {
  if (thrown instanceof RunnerError) return thrown;
  if (isDefect(thrown)) return toRunnerError(thrown);
  const server = serverError(thrown);
  if (server === undefined) return networkFailure(thrown, shownUrl);
  const { code, hint } = classify(server);
  return new RunnerError(code, `${shownUrl}: ${server.message}`, {
    hint: (isRefusal(thrown) ? logInHint : undefined) ?? server.hint ?? hint,
    fields: server.fields,
    cause: thrown,
  });
}

function classify(server: ServerError): { code: RunnerErrorCode; hint: string } {
  switch (server.sqlstate) {
    case sqlstate.invalidPassword:
    case sqlstate.invalidAuthorization:
      return { code: "DATABASE_DENIED", hint: "check user, password and the server's pg_hba.conf" };
    case sqlstate.invalidCatalog:
      return { code: "DATABASE_DENIED", hint: "create the database first, or correct its name in the URL" };
    case sqlstate.insufficientPrivilege:
      return {
        code: "DATABASE_DENIED",
        hint: "the role that migrates needs CREATE on the database, or a schema lockkeeper that it owns; one that only waits, USAGE on that schema and SELECT on its tables streams and history",
      };
    case sqlstate.readOnlyTransaction:
      return { code: "DATABASE_READ_ONLY", hint: "connect to the primary, or make the database writable" };
    case sqlstate.diskFull:
      return { code: "DATABASE_FULL", hint: "free disk space on the server and run again" };
    default:
      return { code: "DATABASE_UNAVAILABLE", hint: "look at the server's log, then run again" };
  }
}

/** Node's codes for a certificate that does not hold, and OpenSSL's for a handshake that fails. */
const tlsCodes = /^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|EPROTO|HOSTNAME_MISMATCH)/;

function networkFailure(thrown: unknown, shownUrl: string): RunnerError {
  const code =
    thrown instanceof Error && "code" in thrown && typeof thrown.code === "string" ? thrown.code : "";
  const message = thrown instanceof Error ? thrown.message : "unknown failure";
  // How `pg` says that it was given no password, or that the server's proof of knowing it is wrong.
  if (message.startsWith("SASL:")) {
    return new RunnerError("DATABASE_DENIED", `${shownUrl}: no password that the server would take`, {
      hint: "put the password into the URL, or name the file that holds it",
      cause: thrown,
    });
  }
  if (tlsCodes.test(code) || /SSL/.test(message)) {
    return new RunnerError("DATABASE_TLS", `${shownUrl}: no TLS connection: ${message}`, {
      hint: "check sslmode and sslrootcert of the URL against the server's certificate",
      cause: thrown,
    });
  }
  const why: Record<string, string> = {
    ECONNREFUSED: "nothing listens there",
    ENOTFOUND: "the host name is unknown",
    EAI_AGAIN: "the host name cannot be looked up now",
    ENOENT: "there is no such socket",
    ETIMEDOUT: "no answer in time",
  };
  return new RunnerError(
    "DATABASE_UNAVAILABLE",
    `${shownUrl}: ${why[code] ?? (message || code || "connection failed")}`,
    {
      hint: "check host and port, and that the server is up",
      cause: thrown,
    },
  );
}
