import type { HandOver } from "../dispatch/hand-over.ts";
import { RunnerError } from "../error.ts";
import { googleTokens, scopes } from "./google-auth.ts";

const google = "https://run.googleapis.com";

/** milliseconds; Google answers as soon as the execution is recorded, long before its container starts */
const patienceMs = 15_000;

/** A job's full name. */
export const cloudRunJobName =
  /^projects\/[a-z0-9.:-]{1,63}\/locations\/[a-z0-9-]{1,63}\/jobs\/[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

/**
 * Starts an execution of a Cloud Run job whose command is `lockkeeper work`. It is told nothing: no argument and no variable
 * of the job is overridden, so who may start it (`run.jobs.run`) can choose nothing of what runs as the job's service account.
 *
 * @param job - `projects/…/locations/…/jobs/…`
 * @param options - for tests: another server than Google's, and other tokens
 * @see https://cloud.google.com/run/docs/reference/rest/v2/projects.locations.jobs/run
 */
export function cloudRunHandOver(
  job: string,
  options: { readonly endpoint?: string; readonly token?: () => Promise<string> } = {},
): HandOver {
  const { endpoint = google, token = googleTokens(scopes.platform) } = options;
  return {
    async start() {
      const status = await post(`${endpoint}/v2/${job}:run`, token).catch((cause: unknown) => {
        const why = cause instanceof RunnerError ? cause.message : "Cloud Run gave no answer";
        throw failed(job, why, "see that run.googleapis.com can be reached from here", cause);
      });
      if (status === 200) return;
      throw failed(job, `Cloud Run answered ${status}`, hintFor(status));
    },
  };
}

async function post(url: string, token: () => Promise<string>): Promise<number> {
  const response = await fetch(url, {
    method: "POST",
    headers: { authorization: `Bearer ${await token()}`, "content-type": "application/json" },
    body: "{}",
    redirect: "error",
    signal: AbortSignal.timeout(patienceMs),
  });
  // An operation: what becomes of it stands in the database.
  await response.body?.cancel();
  return response.status;
}

function hintFor(status: number): string {
  switch (status) {
    case 401:
    case 403:
      return "grant this service account roles/run.invoker on the job: it holds run.jobs.run";
    case 404:
      return "correct work.cloudRunJob in the configuration: projects/<project>/locations/<region>/jobs/<name>";
    case 429:
      return "the quota of running jobs is used up; the run is picked up by the next execution";
    default:
      return "the run is picked up by the next execution; start one with gcloud run jobs execute";
  }
}

function failed(job: string, why: string, hint: string, cause?: unknown): RunnerError {
  return new RunnerError("HAND_OVER_FAILED", `${job} could not be started: ${why}`, { hint, cause });
}
