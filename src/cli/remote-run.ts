import * as v from "valibot";
import { RunnerError, traits } from "../error.ts";
import type { ErrorFields, RunnerErrorCode } from "../error.ts";

const errorSchema = v.object({
  code: v.string(),
  message: v.optional(v.string(), ""),
  hint: v.optional(v.nullable(v.string()), null),
  fields: v.optional(v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), v.null()])), {}),
});

const runSchema = v.object({
  id: v.string(),
  target: v.string(),
  status: v.string(),
  done: v.boolean(),
  outcome: v.nullable(v.string()),
  release: v.nullable(v.object({ digest: v.string(), version: v.nullable(v.number()) })),
  from: v.nullable(v.string()),
  to: v.nullable(v.string()),
  progress: v.object({
    applied: v.number(),
    total: v.number(),
    current: v.nullable(v.string()),
    message: v.optional(v.string(), ""),
  }),
  error: v.nullable(errorSchema),
});

/** A run as the server shows it: the part that the command line reads. */
export type RemoteRun = v.InferOutput<typeof runSchema>;

const problemSchema = v.object({
  code: v.string(),
  detail: v.optional(v.string()),
  title: v.optional(v.string()),
  hint: v.optional(v.string()),
  run: v.optional(v.string()),
  fields: v.optional(v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), v.null()])), {}),
});

/** What one request came to. */
export type Answer =
  | { readonly kind: "run"; readonly run: RemoteRun }
  | {
      readonly kind: "error";
      readonly error: RunnerError;
      readonly isWorthRetry: boolean;
      readonly retryAfterMs: number | undefined;
    };

/** The error that a run ended with, as one of ours; undefined when it succeeded. */
export function errorOfRun(run: RemoteRun): RunnerError | undefined {
  if (!run.done) {
    return new RunnerError("DEADLINE", `run ${run.id} is still ${run.status}; it goes on at the server`, {
      hint: "ask again with the same release: the same run is followed",
      fields: { run: run.id },
    });
  }
  if (run.status === "succeeded") return undefined;
  const fields: ErrorFields = { ...run.error?.fields, run: run.id };
  if (run.error === null) {
    const code = run.status === "canceled" ? "CANCELED" : "MIGRATION_FAILED";
    return new RunnerError(code, `run ${run.id} ended as ${run.status}`, { fields });
  }
  return new RunnerError(knownCode(run.error.code, 409), run.error.message, {
    ...(run.error.hint === null ? {} : { hint: run.error.hint }),
    fields,
  });
}

/** An answer as a run, or as the error that the server names. */
export function readAnswer(response: Response, text: string, url: string): Answer {
  const value = parseJson(text);
  const run = v.safeParse(runSchema, value);
  if ((response.status === 200 || response.status === 202) && run.success)
    return { kind: "run", run: run.output };
  return readProblem(response, text, url);
}

/** An answer that is no success, as the error that the server names. */
export function readProblem(
  response: Response,
  text: string,
  url: string,
): Extract<Answer, { readonly kind: "error" }> {
  const value = parseJson(text);
  const problem = v.safeParse(problemSchema, value);
  const retryAfter = /^\d{1,4}$/.exec(response.headers.get("retry-after") ?? "")?.[0];
  const retryAfterMs = retryAfter === undefined ? undefined : Math.min(60, Number(retryAfter)) * 1_000;
  const isWorthRetry = [429, 502, 503, 504].includes(response.status);
  if (!problem.success) {
    const error = new RunnerError(
      "SERVER_UNAVAILABLE",
      `${new URL(url).origin} answered ${response.status} and nothing that lockkeeper says`,
      {
        hint: "check --url: it must be a lockkeeper server, or a gateway that passes its answers through",
        fields: { status: response.status },
      },
    );
    return { kind: "error", error, isWorthRetry, retryAfterMs };
  }
  const { code, detail, title, hint, fields, run: runId } = problem.output;
  const error = new RunnerError(
    knownCode(code, response.status),
    detail ?? title ?? `the server answered ${response.status}`,
    {
      ...(hint === undefined ? {} : { hint }),
      fields: { ...fields, status: response.status, ...(runId === undefined ? {} : { run: runId }) },
    },
  );
  return { kind: "error", error, isWorthRetry, retryAfterMs };
}

/** The server may be newer than this client and know more codes. */
function knownCode(code: string, status: number): RunnerErrorCode {
  if (isCode(code)) return code;
  if (status === 401 || status === 403) return "NOT_ALLOWED";
  return status >= 500 ? "SERVER_UNAVAILABLE" : "INVALID_REQUEST";
}

function isCode(code: string): code is RunnerErrorCode {
  return Object.hasOwn(traits, code);
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // a gateway's HTML page: the status says what there is to say
  }
}
