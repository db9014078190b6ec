import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test, vi } from "vitest";
import { readAwsSecret } from "../../src/host/aws-secret.ts";
import { lambdaHandOver } from "../../src/host/lambda-hand-over.ts";

/** A service that gives credentials byte by byte, and never comes to an end. */
async function dripping(): Promise<string> {
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    const timer = setInterval(() => response.write(" "), 100);
    response.on("close", () => clearInterval(timer));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
    vi.unstubAllEnvs();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/credentials`;
}

test("a service of credentials that drips bytes holds up neither a secret nor a hand-over for ever", async () => {
  vi.stubEnv("AWS_CONTAINER_CREDENTIALS_FULL_URI", await dripping());
  for (const name of ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"])
    vi.stubEnv(name, undefined);
  for (const name of ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"]) vi.stubEnv(name, "/dev/null");
  vi.stubEnv("AWS_REGION", "eu-west-1");
  const arn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:orders-AbCdEf";
  await Promise.all([
    expect(readAwsSecret(arn, "eu-west-1")).rejects.toMatchObject({ code: "DATABASE_UNAVAILABLE" }),
    expect(lambdaHandOver("lockkeeper").start("orders")).rejects.toMatchObject({ code: "HAND_OVER_FAILED" }),
  ]);
}, 60_000);
