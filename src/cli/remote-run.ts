import * as v from "valibot";
import { RunnerError, traits } from "../error.ts";
import type { ErrorFields, RunnerErrorCode } from "../error.ts";
import { oneLine } from "./output.ts";

/** Words of a server's, which go to terminals and to the logs of jobs. Those of an error become harmless where it is made. */
export const line = v.pipe(v.string(), v.transform(oneLine));

const fieldsSchema = v.optional(
  v.record(v.string(), v.union([v.string(), v.number(), v.boolean(), v.null()])),
  {},
);

const errorSchema = v.looseObject({
  code: v.string(),
  message: v.optional(v.string(), ""),
  hint: v.optional(v.nullable(v.string()), null),
  fields: fieldsSchema,
});

/** A run as the server shows it; what the command line reads of it is checked, the rest is passed on. */
export const runSchema = v.looseObject({
  id: line,
  target: line,
  status: line,
  done: v.boolean(),
  outcome: v.nullable(line),
  release: v.nullable(v.looseObject({ digest: line, version: v.nullable(v.number()) })),
  from: v.nullable(line),
  to: v.nullable(line),
  progress: v.looseObject({
    applied: v.number(),
    total: v.number(),
    current: v.nullable(line),
    message: v.optional(line, ""),
  }),
  error: v.nullable(errorSchema),
  links: v.optional(v.looseObject({ self: v.optional(line) }), {}),
});

/** A run as the server shows it. */
export type RemoteRun = v.InferOutput<typeof runSchema>;

const entrySchema = v.object({
  id: v.number(),
  version: line,
  path: line,
  direction: v.picklist(["up", "down"]),
  status: line,
  origin: line,
  durationMs: v.number(),
});

/** A page of a run's history. */
export const historySchema = v.object({
  history: v.array(entrySchema),
  nextPageToken: v.nullable(line),
});

/** One migration that a run has begun. */
export type RemoteEntry = v.InferOutput<typeof entrySchema>;

/** Who has the lease of a target. */
export const leaseSchema = v.object({
  lease: v.nullable(
    v.object({
      run: line,
      holder: line,
      acquiredAt: v.pipe(
        v.string(),
        v.isoTimestamp(),
        v.transform((text) => new Date(text)),
      ),
    }),
  ),
});

/** What `POST /v1/runs` with the action `plan` answers. */
export const plannedSchema = v.looseObject({
  target: line,
  plan: v.looseObject({
    digest: line,
    release: v.looseObject({ digest: line }),
    from: v.nullable(line),
    to: v.nullable(line),
    steps: v.array(
      v.looseObject({
        version: line,
        path: line,
        direction: v.picklist(["up", "down"]),
        sha256: line,
        tx: line,
        locks: v.array(line),
        breaking: v.optional(v.boolean(), false),
      }),
    ),
  }),
});

/** What a run would do. */
export type RemotePlan = v.InferOutput<typeof plannedSchema>;

const problemSchema = v.object({
  code: v.string(),
  detail: v.optional(v.string()),
  title: v.optional(v.string()),
  hint: v.optional(v.string()),
  run: v.optional(v.string()),
  fields: fieldsSchema,
});

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

/**
 * An answer that is not what was asked for, as the error that it names.
 *
 * @param value - its JSON; undefined where it had none
 */
export function errorOfAnswer(status: number, value: unknown, url: string): RunnerError {
  const problem = v.safeParse(problemSchema, value);
  if (!problem.success) {
    return new RunnerError(
      "SERVER_UNAVAILABLE",
      `${new URL(url).origin} answered ${status} and nothing that lockkeeper says`,
      {
        hint: "check --url: it must be a lockkeeper server, or a gateway that passes its answers through",
        fields: { status },
      },
    );
  }
  const { code, detail, title, hint, fields, run } = problem.output;
  return new RunnerError(knownCode(code, status), detail ?? title ?? `the server answered ${status}`, {
    ...(hint === undefined ? {} : { hint }),
    fields: { ...fields, status, ...(run === undefined ? {} : { run }) },
  });
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
