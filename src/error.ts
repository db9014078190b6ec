/**
 * Every failure this package names, and what each means to a caller.
 *
 * Codes are public API (CLI output, problem bodies, history rows): add, never rename.
 * `http` is the status of a problem body, `exit` the CLI's exit code, `retry` whether the same call may succeed later.
 */
export const traits = {
  // what the caller wrote
  USAGE: { http: 400, exit: 2, retry: false },
  CONFIG: { http: 500, exit: 2, retry: false },
  INVALID_REQUEST: { http: 400, exit: 2, retry: false },
  BODY_TOO_LARGE: { http: 413, exit: 2, retry: false },
  UNSUPPORTED_MEDIA_TYPE: { http: 415, exit: 2, retry: false },
  NOT_FOUND: { http: 404, exit: 2, retry: false },
  METHOD_NOT_ALLOWED: { http: 405, exit: 2, retry: false },
  UNKNOWN_TARGET: { http: 404, exit: 2, retry: false },
  UNKNOWN_RUN: { http: 404, exit: 2, retry: false },
  UNKNOWN_VERSION: { http: 422, exit: 2, retry: false },
  IDEMPOTENCY_MISMATCH: { http: 422, exit: 2, retry: false },
  REPLAY: { http: 409, exit: 23, retry: false },
  UNAUTHENTICATED: { http: 401, exit: 23, retry: false },
  NOT_ALLOWED: { http: 403, exit: 23, retry: false },
  DIGEST_REQUIRED: { http: 403, exit: 23, retry: false },
  RATE_LIMITED: { http: 429, exit: 30, retry: true },
  STOPPING: { http: 503, exit: 31, retry: true },
  NOT_APPLIED: { http: 409, exit: 32, retry: true },
  // bytes from a bucket or folder
  SOURCE_UNAVAILABLE: { http: 503, exit: 31, retry: true },
  SOURCE_DENIED: { http: 503, exit: 31, retry: false },
  SOURCE_NOT_FOUND: { http: 503, exit: 31, retry: false },
  SOURCE_REFUSED: { http: 503, exit: 31, retry: false },
  SOURCE_CONFLICT: { http: 409, exit: 20, retry: true },
  SOURCE_CHANGED: { http: 409, exit: 20, retry: true },
  SOURCE_UNSAFE: { http: 422, exit: 20, retry: false },
  TRUNCATED: { http: 503, exit: 31, retry: true },
  TOO_LARGE: { http: 422, exit: 20, retry: false },
  // migration files
  NAME: { http: 422, exit: 20, retry: false },
  UNKNOWN_FILE: { http: 422, exit: 20, retry: false },
  DUPLICATE_VERSION: { http: 422, exit: 20, retry: false },
  NO_MIGRATIONS: { http: 422, exit: 20, retry: false },
  NO_UP: { http: 422, exit: 20, retry: false },
  FORMAT: { http: 422, exit: 20, retry: false },
  FOLDER_SUM: { http: 422, exit: 20, retry: false },
  COMMAND_SYNTAX: { http: 422, exit: 20, retry: false },
  CODE_REFUSED: { http: 422, exit: 20, retry: false },
  DEPENDENCY: { http: 409, exit: 20, retry: true },
  DEPENDENCY_CYCLE: { http: 422, exit: 20, retry: false },
  BREAKING_REFUSED: { http: 409, exit: 20, retry: false },
  EMPTY_MIGRATION: { http: 422, exit: 20, retry: false },
  ENCODING: { http: 422, exit: 20, retry: false },
  HEADER: { http: 422, exit: 20, retry: false },
  BACKFILL: { http: 422, exit: 20, retry: false },
  SQL_SYNTAX: { http: 422, exit: 20, retry: false },
  SQL_OPEN: { http: 422, exit: 20, retry: false },
  TRANSACTION_CONTROL: { http: 422, exit: 20, retry: false },
  STATEMENT_REFUSED: { http: 422, exit: 20, retry: false },
  // releases: what is signed and how it is judged
  RELEASE_NOT_FOUND: { http: 422, exit: 20, retry: false },
  UNEXPECTED_RELEASE: { http: 412, exit: 20, retry: false },
  RELEASE_UNSUPPORTED: { http: 422, exit: 20, retry: false },
  RELEASE_REVOKED: { http: 422, exit: 20, retry: false },
  B64: { http: 422, exit: 20, retry: false },
  JSON_SYNTAX: { http: 422, exit: 20, retry: false },
  JSON_DUPLICATE: { http: 422, exit: 20, retry: false },
  JSON_NUMBER: { http: 422, exit: 20, retry: false },
  SCHEMA: { http: 422, exit: 20, retry: false },
  BUNDLE: { http: 422, exit: 20, retry: false },
  PAYLOAD_TYPE: { http: 422, exit: 20, retry: false },
  PAYLOAD_DIFFERS: { http: 422, exit: 20, retry: false },
  SIG_COUNT: { http: 422, exit: 20, retry: false },
  THRESHOLD: { http: 422, exit: 20, retry: false },
  PREDICATE_TYPE: { http: 422, exit: 20, retry: false },
  KEY_PRIVATE: { http: 500, exit: 2, retry: false },
  KEY_ALG: { http: 500, exit: 2, retry: false },
  KEY_INVALID: { http: 500, exit: 2, retry: false },
  KEY_PASSPHRASE: { http: 500, exit: 2, retry: false },
  TRUST_INVALID: { http: 500, exit: 2, retry: false },
  KEY_STORE: { http: 503, exit: 31, retry: true },
  ROOT_INVALID: { http: 422, exit: 20, retry: false },
  ROOT_THRESHOLD: { http: 422, exit: 20, retry: false },
  ROOT_VERSION: { http: 422, exit: 20, retry: false },
  ROOT_ROLLBACK: { http: 422, exit: 20, retry: false },
  ROOT_EXPIRED: { http: 422, exit: 20, retry: false },
  WRONG_EPOCH: { http: 422, exit: 20, retry: false },
  TIMESTAMP_MISSING: { http: 422, exit: 20, retry: true },
  TIMESTAMP_EXPIRED: { http: 422, exit: 20, retry: true },
  STALE_RELEASE: { http: 422, exit: 20, retry: true },
  WRONG_STREAM: { http: 422, exit: 20, retry: false },
  WRONG_ENVIRONMENT: { http: 422, exit: 20, retry: false },
  WRONG_ENGINE: { http: 422, exit: 20, retry: false },
  ISSUED_IN_FUTURE: { http: 422, exit: 20, retry: false },
  RELEASE_EXPIRED: { http: 422, exit: 20, retry: false },
  VALIDITY: { http: 422, exit: 20, retry: false },
  ROLLBACK: { http: 422, exit: 20, retry: false },
  EQUIVOCATION: { http: 422, exit: 20, retry: false },
  MANIFEST_DIGEST: { http: 422, exit: 20, retry: false },
  SEQ: { http: 422, exit: 20, retry: false },
  CHAIN: { http: 422, exit: 20, retry: false },
  CHAIN_HEAD: { http: 422, exit: 20, retry: false },
  BLOB_DIGEST: { http: 422, exit: 20, retry: false },
  HISTORY_REWRITTEN: { http: 422, exit: 20, retry: false },
  UNSIGNED_REFUSED: { http: 422, exit: 20, retry: false },
  CLOCK_SKEW: { http: 503, exit: 31, retry: true },
  // planning
  OUT_OF_ORDER: { http: 409, exit: 20, retry: false },
  CHANGED_FILE: { http: 409, exit: 20, retry: false },
  DATABASE_AHEAD: { http: 409, exit: 20, retry: false },
  PLAN_CHANGED: { http: 409, exit: 20, retry: false },
  NO_DOWN: { http: 422, exit: 20, retry: false },
  WRONG_DIRECTION: { http: 422, exit: 20, retry: false },
  HELD: { http: 409, exit: 20, retry: false },
  FAILED_BEFORE: { http: 409, exit: 20, retry: false },
  PAUSED: { http: 409, exit: 20, retry: true },
  NOTHING_TO_REPAIR: { http: 409, exit: 20, retry: false },
  HISTORY_NOT_EMPTY: { http: 409, exit: 20, retry: false },
  ADOPTION: { http: 409, exit: 20, retry: false },
  // doing it
  MIGRATION_FAILED: { http: 409, exit: 21, retry: false },
  NEEDS_ATTENTION: { http: 409, exit: 22, retry: false },
  LOCK_TIMEOUT: { http: 503, exit: 21, retry: true },
  NO_PROGRESS: { http: 409, exit: 21, retry: false },
  BACKUP_FAILED: { http: 409, exit: 20, retry: true },
  LEASE_HELD: { http: 409, exit: 30, retry: true },
  LEASE_LOST: { http: 409, exit: 30, retry: true },
  LEASE_ALIVE: { http: 409, exit: 30, retry: true },
  RUN_ENDED: { http: 409, exit: 20, retry: false },
  CANCELED: { http: 409, exit: 32, retry: true },
  DEADLINE: { http: 504, exit: 32, retry: true },
  HANDED_OVER: { http: 503, exit: 32, retry: true },
  HAND_OVER_FAILED: { http: 503, exit: 31, retry: true },
  // the database
  DATABASE_UNAVAILABLE: { http: 503, exit: 31, retry: true },
  DATABASE_DENIED: { http: 503, exit: 31, retry: false },
  DATABASE_TLS: { http: 503, exit: 31, retry: false },
  DATABASE_READ_ONLY: { http: 503, exit: 31, retry: true },
  DATABASE_FULL: { http: 503, exit: 31, retry: true },
  DATABASE_UNSUPPORTED: { http: 503, exit: 31, retry: false },
  POOL_TOO_SMALL: { http: 503, exit: 31, retry: false },
  // the audit log
  AUDIT_BROKEN: { http: 409, exit: 20, retry: false },
  AUDIT_UNAVAILABLE: { http: 503, exit: 31, retry: true },
  // the server this one talks to (`trigger`)
  SERVER_UNAVAILABLE: { http: 502, exit: 31, retry: true },
  // ours
  INTERNAL: { http: 500, exit: 1, retry: false },
} as const satisfies Record<string, { http: number; exit: number; retry: boolean }>;

/** A stable name for a failure; the list with its meanings is {@link traits}. */
export type RunnerErrorCode = keyof typeof traits;

/** What a program can read from an error besides its code. Flat, JSON-safe, free of secrets, SQL and row data. */
export type ErrorFields = Readonly<Record<string, string | number | boolean | null>>;

/**
 * The one error class of this package.
 *
 * `message` says what and where, lower case, without a full stop; `hint` says what to do next.
 * `fields` repeats the where for programs: `migration`, `line`, `column`, `sqlstate`, `expected`, `actual`…
 * The message may reach a caller over HTTP: no URL with a password, no token, no SQL text, no row data.
 */
export class RunnerError extends Error {
  override readonly name = "RunnerError";
  readonly code: RunnerErrorCode;
  readonly hint: string | undefined;
  readonly fields: ErrorFields;

  constructor(
    code: RunnerErrorCode,
    message: string,
    options: { hint?: string; fields?: ErrorFields; cause?: unknown } = {},
  ) {
    super(presentable(message), options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.hint = options.hint === undefined ? undefined : presentable(options.hint);
    this.fields = Object.fromEntries(
      Object.entries(options.fields ?? {}).map(([name, value]) => [
        name,
        typeof value === "string" ? presentable(value).replace(/[\n\t]/g, escaped) : value,
      ]),
    );
  }

  get http(): number {
    return traits[this.code].http;
  }

  get exit(): number {
    return traits[this.code].exit;
  }

  get retryable(): boolean {
    return traits[this.code].retry;
  }
}

/** What a terminal takes for a command or shows in another order, except line ends and tabs: a hostile bucket may have named something so. */
const unpresentable = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;
/** Characters; a list of fifty problems has fewer. */
const maxTextLength = 12_000;

function presentable(text: string): string {
  const visible = text.replace(unpresentable, escaped);
  return visible.length > maxTextLength ? `${visible.slice(0, maxTextLength).toWellFormed()}…` : visible;
}

function escaped(character: string): string {
  return `\\u{${character.codePointAt(0)?.toString(16)}}`;
}

/** Whatever was thrown, as a {@link RunnerError}; what nobody named becomes `INTERNAL` with its cause kept. */
export function toRunnerError(thrown: unknown): RunnerError {
  if (thrown instanceof RunnerError) return thrown;
  return new RunnerError("INTERNAL", "an unexpected error, a defect of lockkeeper", {
    hint: "run again with --verbose and report what it prints",
    cause: thrown,
  });
}
