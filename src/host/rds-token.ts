import { RunnerError } from "../error.ts";
import { inTime } from "./in-time.ts";

/** What a token lets somebody log in to, and as whom. */
export interface LogIn {
  readonly host: string;
  readonly port: number;
  readonly user: string;
}

/** milliseconds to find AWS credentials: a machine without any asks a metadata service that is not there */
const patienceMs = 10_000;

/** Region of an endpoint of Amazon RDS or Aurora, by its name; undefined for any other host. */
export function regionOfRds(host: string): string | undefined {
  // `….eu-west-1.rds.amazonaws.com`, in China also `….rds.cn-north-1.amazonaws.com.cn`
  const found = /\.(?:([a-z]{2}[a-z-]*-\d)\.rds|rds\.([a-z]{2}[a-z-]*-\d))\.amazonaws\.com(?:\.cn)?$/i.exec(
    host,
  );
  return (found?.[1] ?? found?.[2])?.toLowerCase();
}

/**
 * Makes tokens that PostgreSQL on Amazon RDS and Aurora takes as a password, with AWS's usual credentials. A token is for one
 * endpoint and user, is good for 15 minutes and is looked at only when a connection is made; making one asks nobody.
 *
 * @param region - where an endpoint's name does not say
 * @see https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html
 */
export function rdsTokens(region: string | undefined): (to: LogIn) => Promise<string> {
  // The client keeps its credentials and renews them: one for each log-in, not for each connection.
  const signers = new Map<string, Promise<{ getAuthToken(): Promise<string> }>>();
  return async (to) => {
    const { host, port, user } = to;
    const where = regionOfRds(host) ?? region;
    if (where === undefined) {
      throw new RunnerError("CONFIG", `nothing says which AWS region the database at ${host} is in`, {
        hint: "write the endpoint's own name, which ends in .rds.amazonaws.com, as iamHost; or set AWS_REGION",
      });
    }
    const key = JSON.stringify(to);
    const signer =
      signers.get(key) ??
      import("@aws-sdk/rds-signer").then(
        ({ Signer }) => new Signer({ hostname: host, port, username: user, region: where }),
      );
    signers.set(key, signer);
    try {
      return await inTime((await signer).getAuthToken(), patienceMs);
    } catch (cause) {
      signers.delete(key);
      throw new RunnerError(
        "DATABASE_UNAVAILABLE",
        `no AWS credentials were found to make a token for ${host}`,
        {
          hint: "give this process a role: of the function, the task, the service account, or by AWS_PROFILE",
          cause,
        },
      );
    }
  };
}
