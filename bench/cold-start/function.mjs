// One cold start of the function in a folder with one event, as Lambda's runtime has it: the import, then the handler.
// Writes what came of it, and how long both took: node function.mjs INDEX EVENT OUT
import { writeFileSync } from "node:fs";

const [, , index, event, out] = process.argv;
const began = performance.now();
const { handler } = await import(index);
const imported = performance.now();
const answer = await handler(JSON.parse(event), {
  awsRequestId: "00000000-0000-4000-8000-000000000000",
  invokedFunctionArn: "arn:aws:lambda:us-east-1:012345678912:function:lockkeeper:live",
  getRemainingTimeInMillis: () => 60_000,
});
const ended = performance.now();
writeFileSync(out, JSON.stringify({ importMs: imported - began, invokeMs: ended - imported, answer }));
