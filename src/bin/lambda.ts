import { readVariables } from "./config.ts";
import { createHandler, type LambdaHandler } from "./lambda/handler.ts";

/** What AWS Lambda is told to call: `index.handler` of the bundle that `infra/aws/bundle.ts` makes. */
export const handler: LambdaHandler = createHandler(readVariables(), process.stdout);
