import type { LambdaClient } from "@aws-sdk/client-lambda";
import type { HandOver } from "../dispatch/hand-over.ts";
import { RunnerError } from "../error.ts";
import { inTime } from "./in-time.ts";

/** Milliseconds for Lambda to take a request, all tries together: what a run leaves of its function's time has to be enough. */
const invokeMs = 5_000;
/** milliseconds to connect: in a network without a way to Lambda's API nobody ever answers */
const connectMs = 2_000;

/**
 * Starts executions by invoking a function of ours without waiting for it (`InvocationType: Event`), as a rule the one
 * that runs now. Lambda keeps the message and may deliver it twice; both then look at the same rows of the database.
 *
 * @param functionName - its ARN with the alias that it was called by, or a name
 */
export function lambdaHandOver(functionName: string): HandOver {
  let client: LambdaClient | undefined;
  return {
    async start(target) {
      const { InvokeCommand, LambdaClient } = await import("@aws-sdk/client-lambda");
      client ??= new LambdaClient({ requestHandler: { connectionTimeout: connectMs } });
      const command = new InvokeCommand({
        FunctionName: functionName,
        InvocationType: "Event",
        Payload: JSON.stringify({ lockkeeper: { work: { target } } }),
      });
      try {
        await inTime(client.send(command, { abortSignal: AbortSignal.timeout(invokeMs) }), invokeMs);
      } catch (cause) {
        throw notInvoked(functionName, cause);
      }
    },
  };
}

function notInvoked(functionName: string, cause: unknown): RunnerError {
  const why = cause instanceof Error ? cause.name : "unknown reason";
  // without the account
  const shown = functionName.split(":function:").at(-1) ?? functionName;
  return new RunnerError("HAND_OVER_FAILED", `the function "${shown}" could not be invoked (${why})`, {
    hint: "its role needs lambda:InvokeFunction on it, and in a VPC it needs a way to Lambda's API, such as an interface endpoint",
    cause,
  });
}
