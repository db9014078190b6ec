import * as v from "valibot";
import { RunnerError } from "../error.ts";
import { googleTokens, scopes } from "./google-auth.ts";

const google = "https://secretmanager.googleapis.com";

/** milliseconds for the whole answer */
const patienceMs = 10_000;
/** characters; Google's own limit is 64 KiB of data, of which base64 makes a third more */
const maxAnswerChars = 128 * 1024;

const answer = v.object({
  payload: v.object({ data: v.pipe(v.string(), v.base64()), dataCrc32c: v.optional(v.string()) }),
});

/**
 * The text of a version of a secret of Google Secret Manager, with Google's usual credentials.
 *
 * @param name - `projects/…/secrets/…/versions/…`
 * @throws RunnerError `CONFIG`, `DATABASE_DENIED`, `DATABASE_UNAVAILABLE`
 * @see https://cloud.google.com/secret-manager/docs/reference/rest/v1/projects.secrets.versions/access
 */
export async function readGoogleSecret(name: string, endpoint: string = google): Promise<string> {
  const token = await googleTokens(scopes.platform)();
  let status: number;
  let text: string;
  try {
    const response = await fetch(`${endpoint}/v1/${name}:access`, {
      headers: { authorization: `Bearer ${token}` },
      redirect: "error",
      signal: AbortSignal.timeout(patienceMs),
    });
    status = response.status;
    text = await response.text();
  } catch (cause) {
    throw away(name, "no answer", cause);
  }
  if (status !== 200) throw refusal(name, status);
  const parsed = text.length > maxAnswerChars ? undefined : v.safeParse(answer, parseJson(text));
  if (parsed?.success !== true) throw away(name, "an answer that is not Google's");
  const value = Buffer.from(parsed.output.payload.data, "base64").toString("utf8");
  if (value === "") throw new RunnerError("CONFIG", `the secret ${name} has no text`);
  return value;
}

function refusal(name: string, status: number): RunnerError {
  switch (status) {
    case 401:
    case 403:
      return new RunnerError("DATABASE_DENIED", `the secret ${name} is not for this process (${status})`, {
        hint: "grant its service account roles/secretmanager.secretAccessor on this secret",
      });
    case 404:
      return new RunnerError("CONFIG", `there is no secret ${name}`, {
        hint: "check the project's and the secret's name, and that it has a version",
      });
    case 400:
      return new RunnerError("CONFIG", `the secret ${name} cannot be read`, {
        hint: "its version may be disabled or destroyed: name another, or enable it",
      });
    default:
      return away(name, `status ${status}`);
  }
}

function away(name: string, why: string, cause?: unknown): RunnerError {
  return new RunnerError("DATABASE_UNAVAILABLE", `the secret ${name} cannot be read now (${why})`, {
    hint: "try again; if it lasts, see whether secretmanager.googleapis.com is enabled and can be reached",
    cause,
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
