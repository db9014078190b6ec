import { traits, type ErrorFields, type RunnerError, type RunnerErrorCode } from "../error.ts";
import { withoutAddress } from "../report/without-address.ts";

/** An error as a caller sees it: RFC 9457 with our extension members. */
export interface Problem {
  /** `urn:lockkeeper:problem:migration-failed` */
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly code: RunnerErrorCode;
  readonly retryable: boolean;
  readonly detail?: string;
  readonly hint?: string;
  readonly fields?: ErrorFields;
  /** the request, as the server's log calls it */
  readonly instance?: string;
  readonly target?: string;
  /** id of the run it is about */
  readonly run?: string;
  readonly links?: Readonly<Record<string, string>>;
}

/** Where a problem happened. */
export interface ProblemPlace {
  readonly requestId?: string;
  readonly target?: string;
  readonly run?: string;
  readonly links?: Readonly<Record<string, string>>;
  /** instead of the code's own status: what a gate answers */
  readonly status?: number;
}

/** Seconds that a caller is asked to wait where nothing better is known. */
const retryAfterSeconds = 5;

/**
 * The public half of an error. What is wrong with the server itself (its configuration, a defect) is told to the log
 * only; the caller gets the code and the name under which the log has it. Nor are callers told where databases and buckets are.
 */
export function problemOf(
  error: Pick<RunnerError, "code" | "message" | "hint" | "fields">,
  place: ProblemPlace = {},
): Problem {
  const own = traits[error.code];
  const isOurs = own.http === 500;
  return {
    type: `urn:lockkeeper:problem:${error.code.toLowerCase().replaceAll("_", "-")}`,
    title: titleOf(error.code),
    status: place.status ?? own.http,
    code: error.code,
    retryable: own.retry,
    detail: isOurs
      ? "the server cannot answer this because of a fault of its own; its log says why"
      : withoutAddress(error.message),
    ...(isOurs || error.hint === undefined ? {} : { hint: withoutAddress(error.hint) }),
    ...(isOurs || Object.keys(error.fields).length === 0 ? {} : { fields: error.fields }),
    ...(place.requestId === undefined ? {} : { instance: `urn:uuid:${place.requestId}` }),
    ...(place.target === undefined ? {} : { target: place.target }),
    ...(place.run === undefined ? {} : { run: place.run }),
    ...(place.links === undefined ? {} : { links: place.links }),
  };
}

/** The answer that carries a problem. */
export function problemResponse(problem: Problem): Response {
  const headers = new Headers({ "content-type": "application/problem+json" });
  if (problem.status === 401) headers.set("www-authenticate", 'Bearer realm="lockkeeper"');
  const allow = problem.fields?.["allow"];
  if (problem.status === 405 && typeof allow === "string") headers.set("allow", allow);
  const asked = problem.fields?.["retryAfterSeconds"];
  if (typeof asked === "number") headers.set("retry-after", String(asked));
  else if (problem.status === 503 && problem.retryable) headers.set("retry-after", String(retryAfterSeconds));
  return new Response(JSON.stringify(problem), { status: problem.status, headers });
}

/** `MIGRATION_FAILED` → `Migration failed`. */
function titleOf(code: RunnerErrorCode): string {
  const words = code.toLowerCase().replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
