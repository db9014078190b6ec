import { RunnerError } from "../error.ts";
import { inTime } from "./in-time.ts";

/** What a token is for. */
export const scopes = {
  platform: "https://www.googleapis.com/auth/cloud-platform",
  cloudSql: "https://www.googleapis.com/auth/sqlservice.login",
} as const;

/** Named only so that Google's library looks for none: it would ask `gcloud` and the metadata server first. */
const projectId = "none";

/** milliseconds to find Google credentials, and to get a token for them */
const patienceMs = 10_000;

/**
 * Gives access tokens of Google's usual credentials: of the service account of a Cloud Run service, of Workload Identity,
 * or of a file. Google's library is loaded by the first call; it keeps a token until it is about to expire.
 *
 * @throws RunnerError `DATABASE_UNAVAILABLE` - there are none; whoever wants something else of Google wraps it
 */
export function googleTokens(scope: string): () => Promise<string> {
  let auth: Promise<{ getAccessToken(): Promise<string | null | undefined> }> | undefined;
  return async () => {
    auth ??= import("google-auth-library").then(
      ({ GoogleAuth }) => new GoogleAuth({ scopes: [scope], projectId }),
    );
    try {
      const token = await inTime((await auth).getAccessToken(), patienceMs);
      if (typeof token === "string" && token !== "") return token;
      throw new Error("the token is empty");
    } catch (cause) {
      auth = undefined;
      throw new RunnerError(
        "DATABASE_UNAVAILABLE",
        "no Google credentials were found, or Google gave no token",
        {
          hint: "run as a service account of Google Cloud, or set GOOGLE_APPLICATION_CREDENTIALS",
          cause,
        },
      );
    }
  };
}
