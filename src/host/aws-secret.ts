import { RunnerError } from "../error.ts";
import { inTime } from "./in-time.ts";

/** milliseconds to connect, and for the whole answer with what the client tries again and its look for credentials */
const connectMs = 3_000;
const patienceMs = 10_000;

/**
 * The text of a secret of AWS Secrets Manager, its current version, with AWS's usual credentials.
 *
 * @throws RunnerError `CONFIG`, `DATABASE_DENIED`, `DATABASE_UNAVAILABLE`
 */
export async function readAwsSecret(arn: string, region: string): Promise<string> {
  const { GetSecretValueCommand, SecretsManagerClient } = await import("@aws-sdk/client-secrets-manager");
  const client = new SecretsManagerClient({
    region,
    requestHandler: { connectionTimeout: connectMs, requestTimeout: patienceMs },
  });
  let value: string | undefined;
  try {
    const asked = client.send(new GetSecretValueCommand({ SecretId: arn }), {
      abortSignal: AbortSignal.timeout(patienceMs),
    });
    value = (await inTime(asked, patienceMs)).SecretString;
  } catch (cause) {
    throw failure(cause, arn);
  } finally {
    client.destroy();
  }
  if (value === undefined || value === "")
    throw new RunnerError("CONFIG", `the secret ${arn} has no text`, {
      hint: "store text, not a binary value",
    });
  return value;
}

function failure(cause: unknown, arn: string): RunnerError {
  const name = cause instanceof Error ? cause.name : "";
  switch (name) {
    case "ResourceNotFoundException":
      return new RunnerError("CONFIG", `there is no secret ${arn}, or none that is current`, {
        hint: "copy its ARN whole, with the six characters after its name",
        cause,
      });
    case "AccessDeniedException":
    case "DecryptionFailure":
    case "UnrecognizedClientException":
    case "InvalidSignatureException":
    case "ExpiredTokenException":
      return new RunnerError("DATABASE_DENIED", `the secret ${arn} is not for this process (${name})`, {
        hint: "allow its role secretsmanager:GetSecretValue on this ARN, and kms:Decrypt on the key of the secret where it has its own",
        cause,
      });
    case "CredentialsProviderError":
      return new RunnerError(
        "DATABASE_UNAVAILABLE",
        `no AWS credentials were found to read the secret ${arn}`,
        {
          hint: "give this process a role: of the function, the task, the service account, or by AWS_PROFILE",
          cause,
        },
      );
    default:
      return new RunnerError(
        "DATABASE_UNAVAILABLE",
        `the secret ${arn} cannot be read now (${name || "unknown reason"})`,
        {
          hint: "in a VPC without a way out, AWS Secrets Manager needs an interface endpoint",
          cause,
        },
      );
  }
}
