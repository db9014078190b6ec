/** SQLSTATEs this driver decides by; the server's message text is never compared. Source: PostgreSQL manual, appendix A. */
export const sqlstate = {
  /** our fence raises it when the lease is lost; a body may raise it as well */
  divisionByZero: "22012",
  /** invalid_argument_for_width_bucket_function: raised by the guard of a history entry only */
  bodyEndedTransaction: "2201G",
  /** in_failed_sql_transaction: what every statement after a failed one gets */
  failedTransaction: "25P02",
  /** invalid_sql_statement_name: nothing of that name is prepared */
  noSuchStatement: "26000",
  /** duplicate_prepared_statement */
  duplicateStatement: "42P05",
  /** feature_not_supported, for what was prepared: `cached plan must not change result type` */
  changedResult: "0A000",
  invalidPassword: "28P01",
  invalidAuthorization: "28000",
  invalidCatalog: "3D000",
  insufficientPrivilege: "42501",
  uniqueViolation: "23505",
  undefinedTable: "42P01",
  duplicateTable: "42P07",
  undefinedColumn: "42703",
  readOnlyTransaction: "25006",
  serializationFailure: "40001",
  deadlockDetected: "40P01",
  lockNotAvailable: "55P03",
  queryCanceled: "57014",
  adminShutdown: "57P01",
  crashShutdown: "57P02",
  cannotConnectNow: "57P03",
  tooManyConnections: "53300",
  diskFull: "53100",
} as const;

/** The same body may succeed when it is tried again: nothing of it took effect. */
export const retryableBody: ReadonlySet<string> = new Set([
  sqlstate.lockNotAvailable,
  sqlstate.deadlockDetected,
  sqlstate.serializationFailure,
]);

/** The server is there but cannot take this connection yet. */
export const notReadyYet: ReadonlySet<string> = new Set([
  sqlstate.cannotConnectNow,
  sqlstate.tooManyConnections,
]);

/** The server ended the session: what was under way may or may not have committed. */
export function endsSession(code: string): boolean {
  return (
    code === sqlstate.adminShutdown ||
    code === sqlstate.crashShutdown ||
    code === sqlstate.cannotConnectNow ||
    code === "57P05" || // idle_session_timeout
    code === "25P03" || // idle_in_transaction_session_timeout
    code === "25P04" || // transaction_timeout
    code.startsWith("08")
  );
}

/** Two runners created the same object at once; the loser looks again. */
export const creationClash: ReadonlySet<string> = new Set([
  sqlstate.uniqueViolation, // in a catalogue
  "42P06", // duplicate_schema
  sqlstate.duplicateTable,
  "42710", // duplicate_object
  "XX000", // tuple concurrently updated
  sqlstate.deadlockDetected,
  sqlstate.lockNotAvailable, // a transaction is in the way
  sqlstate.divisionByZero, // the advisory lock that serialises creation is taken
]);
