import * as v from "valibot";
import { RunnerError } from "../error.ts";
import { HttpTimeout } from "./http.ts";
import { retryAfterField, retryAfterMs } from "./retry.ts";

/** What was being done, for messages. */
export interface S3Act {
  readonly act: "listing" | "reading" | "writing";
  readonly key?: string;
}

/** What the SDK hangs on its errors, as far as it is there: `$response` is the raw answer. */
const sdkError = v.object({
  name: v.optional(v.string(), ""),
  message: v.optional(v.string(), ""),
  code: v.optional(v.unknown()),
  $metadata: v.optional(v.object({ httpStatusCode: v.optional(v.number()) })),
  $response: v.optional(v.object({ headers: v.optional(v.record(v.string(), v.string()), {}) })),
});

/** The HTTP status of an error of the SDK, if there was an answer at all. */
export function s3Status(error: unknown): number | undefined {
  const parsed = v.safeParse(sdkError, error);
  return parsed.success ? parsed.output.$metadata?.httpStatusCode : undefined;
}

/** Whether a request or body was given up because no byte came for too long. */
export function isTimeout(error: unknown): boolean {
  return error instanceof Error && (error.name === "TimeoutError" || error instanceof HttpTimeout);
}

/** Names a failure of the SDK. What another try may cure becomes `SOURCE_UNAVAILABLE`. */
export function s3Failure(thrown: unknown, source: string, { act, key }: S3Act): RunnerError {
  const parsed = v.safeParse(sdkError, thrown);
  const error = s3Status(thrown) === undefined ? thrown : withoutAnswer(thrown);
  const { name, message, $metadata, $response } = parsed.success
    ? parsed.output
    : { name: "", message: "", $metadata: undefined, $response: undefined };
  const status = $metadata?.httpStatusCode;
  const what = key === undefined ? act : `${act} "${key}"`;
  const answer =
    status === undefined ? "" : ` (${status}${name === "" || name === "Error" ? "" : ` ${name}`})`;
  const fields = {
    source,
    ...(key === undefined ? {} : { key }),
    ...(status === undefined ? {} : { status }),
  };

  switch (name) {
    case "NoSuchBucket":
      return new RunnerError("SOURCE_NOT_FOUND", `${source}: there is no such bucket`, {
        hint: "check the bucket's name, the account and the endpoint",
        fields,
        cause: error,
      });
    case "CredentialsProviderError":
      return new RunnerError("SOURCE_DENIED", `${source}: no AWS credentials were found`, {
        hint: "give the process a role, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
        fields,
        cause: error,
      });
    case "RequestTimeTooSkewed":
      return new RunnerError(
        "CLOCK_SKEW",
        `${source}: this machine's clock differs too much from the store's`,
        {
          hint: "set the clock by NTP",
          fields,
          cause: error,
        },
      );
    case "PermanentRedirect":
    case "AuthorizationHeaderMalformed":
    case "IllegalLocationConstraintException":
      return new RunnerError(
        "CONFIG",
        `${source}: the bucket is in another region${region($response?.headers)}`,
        {
          hint: "set that region (AWS_REGION, or the source's region in the configuration)",
          fields,
          cause: error,
        },
      );
    case "BadDigest":
    case "XAmzContentChecksumMismatch":
      return new RunnerError("TRUNCATED", `${source}: ${what} failed, the bytes were damaged on the way`, {
        fields,
        cause: error,
      });
  }
  // The SDK names this one only by its text.
  if (status === undefined && message === "Region is missing") {
    return new RunnerError("CONFIG", `${source}: the bucket's region is not known`, {
      hint: "set AWS_REGION, or the source's region in the configuration",
      fields,
      cause: error,
    });
  }
  if (status === 401 || status === 403 || name === "ExpiredToken" || name === "InvalidToken") {
    return new RunnerError("SOURCE_DENIED", `${source}: ${what} was denied${answer}`, {
      hint: credentialHints.get(name) ?? deniedHints[act],
      fields,
      cause: error,
    });
  }
  if (isCurable(status, name)) {
    const wait = retryAfterMs($response?.headers["retry-after"], new Date());
    return new RunnerError(
      "SOURCE_UNAVAILABLE",
      `${source}: ${what} failed${answer === "" ? reason(error) : answer}`,
      {
        hint: "the store did not answer as it should; try again later",
        fields: { ...fields, ...(wait === undefined ? {} : { [retryAfterField]: wait }) },
        cause: error,
      },
    );
  }
  return new RunnerError(
    status === 404 ? "SOURCE_NOT_FOUND" : "SOURCE_REFUSED",
    `${source}: ${what} was refused${answer}`,
    {
      hint: "check the endpoint, the bucket's name and whether the store supports conditional requests",
      fields,
      cause: error,
    },
  );
}

/** The error without the store's answer: some servers repeat in it what was signed, the session's token among it. */
function withoutAnswer(thrown: unknown): unknown {
  if (!(thrown instanceof Error)) return thrown;
  const error = new Error(thrown.message);
  error.name = thrown.name;
  if (thrown.stack !== undefined) error.stack = thrown.stack;
  return error;
}

/** What the store says of the credentials themselves: a right that is granted would change nothing. */
const credentialHints: ReadonlyMap<string, string> = new Map([
  ["SignatureDoesNotMatch", "check the secret key: it is not that of this access key"],
  ["InvalidAccessKeyId", "check the access key: the store does not know it"],
  ["ExpiredToken", "get new credentials: these have expired"],
  ["InvalidToken", "get new credentials: the store does not take this session token"],
]);

const deniedHints = {
  listing: "grant s3:ListBucket on the bucket",
  // Without ListBucket, S3 answers 403 instead of 404 for an object that does not exist.
  reading:
    "grant s3:GetObject on the prefix, and s3:ListBucket on the bucket: without it a missing object looks denied",
  writing: "grant s3:PutObject on the prefix",
} as const satisfies Record<S3Act["act"], string>;

/** No answer at all, a server's fault, or "later": another try may help. 409 is two conditional writes at once. */
function isCurable(status: number | undefined, name: string): boolean {
  if (status === undefined || status < 300) return true;
  if (
    name === "ConditionalRequestConflict" ||
    name === "OperationAborted" ||
    name === "SlowDown" ||
    name === "RequestTimeout"
  ) {
    return true;
  }
  return status === 408 || status === 429 || (status >= 500 && status !== 501);
}

function region(headers: Readonly<Record<string, string>> | undefined): string {
  const name = headers?.["x-amz-bucket-region"];
  return name === undefined ? "" : ` (${name})`;
}

function reason(error: unknown): string {
  if (isTimeout(error)) return ", it took too long";
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? ` (${error.code})`
    : "";
}
