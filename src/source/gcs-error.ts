import * as v from "valibot";
import { RunnerError } from "../error.ts";
import { HttpTimeout } from "./http.ts";
import { retryAfterField, retryAfterMs } from "./retry.ts";

/** What was being done, for messages. */
export interface GcsAct {
  readonly act: "listing" | "reading" | "writing";
  readonly key?: string;
}

/** The JSON API's error body, where it is one; media downloads answer in plain text. */
const errorBody = v.object({
  error: v.object({ errors: v.optional(v.array(v.object({ reason: v.optional(v.string(), "") })), []) }),
});

/** Names an answer that is no success. What another try may cure becomes `SOURCE_UNAVAILABLE`. */
export function gcsRefusal(
  status: number,
  retryAfter: string | undefined,
  text: string,
  source: string,
  act: GcsAct,
): RunnerError {
  const reason = reasonOf(text);
  const what = describe(act);
  const answer = reason === "" ? `(${status})` : `(${status} ${reason})`;
  const fields = fieldsOf(source, act, status);
  if (
    status === 408 ||
    status === 429 ||
    (status >= 500 && status !== 501) ||
    /rateLimitExceeded/i.test(reason)
  ) {
    const wait = retryAfterMs(retryAfter, new Date());
    return new RunnerError("SOURCE_UNAVAILABLE", `${source}: ${what} failed ${answer}`, {
      hint: "the store did not answer as it should; try again later",
      fields: { ...fields, ...(wait === undefined ? {} : { [retryAfterField]: wait }) },
    });
  }
  if (status === 401 || status === 403) {
    return new RunnerError("SOURCE_DENIED", `${source}: ${what} was denied ${answer}`, {
      hint: deniedHints[act.act],
      fields,
    });
  }
  if (status === 404) {
    return new RunnerError("SOURCE_NOT_FOUND", `${source}: there is no such bucket`, {
      hint: "check the bucket's name, the project and the endpoint",
      fields,
    });
  }
  return new RunnerError("SOURCE_REFUSED", `${source}: ${what} was refused ${answer}`, {
    hint: "check the endpoint and the bucket's name",
    fields,
  });
}

/** Names a request that got no usable answer; the cause is kept. */
export function gcsFailure(error: unknown, source: string, act: GcsAct): RunnerError {
  if (error instanceof RunnerError) return error;
  const what = describe(act);
  const fields = fieldsOf(source, act);
  // Google's library has no error classes; this is the text of `getApplicationDefault`, its one way to say it.
  if (error instanceof Error && error.message.startsWith("Could not load the default credentials")) {
    return new RunnerError("SOURCE_DENIED", `${source}: no Google credentials were found`, {
      hint: "give the process a service account, workload identity or GOOGLE_APPLICATION_CREDENTIALS",
      fields,
      cause: error,
    });
  }
  return new RunnerError("SOURCE_UNAVAILABLE", `${source}: ${what} failed${reasonOfError(error)}`, {
    hint: "the store did not answer as it should; try again later",
    fields,
    cause: error,
  });
}

const deniedHints = {
  listing: "grant storage.objects.list on the bucket",
  reading:
    "grant storage.objects.get on the bucket, and storage.objects.list: without it a missing object looks denied",
  writing: "grant storage.objects.create on the bucket, and storage.objects.delete to replace the head",
} as const satisfies Record<GcsAct["act"], string>;

function describe({ act, key }: GcsAct): string {
  return key === undefined ? act : `${act} "${key}"`;
}

function fieldsOf(source: string, { key }: GcsAct, status?: number): Record<string, string | number> {
  return { source, ...(key === undefined ? {} : { key }), ...(status === undefined ? {} : { status }) };
}

function reasonOf(text: string): string {
  try {
    const parsed = v.safeParse(errorBody, JSON.parse(text));
    const reason = parsed.success ? (parsed.output.error.errors[0]?.reason ?? "") : "";
    return /^[A-Za-z]{1,60}$/.test(reason) ? reason : "";
  } catch {
    return "";
  }
}

function reasonOfError(error: unknown): string {
  if (error instanceof HttpTimeout) return `, ${error.message}`;
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? ` (${error.code})`
    : "";
}
