import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, request, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";

import { openSource } from "../../src/source/open.ts";
import { startS3, type S3Server } from "../support/bucket.ts";
import { needs, part } from "../support/parts.ts";
import { makeKey, publishTo } from "../support/release.ts";
import { resolveTemplate } from "./resolved-template.ts";

const file = join(import.meta.dirname, "../../infra/aws/template.yaml");

describe("infra/aws/template.yaml", () => {
  describe("by AWS's own linters", () => {
    needs("sam");

    test(
      "has nothing that sam validate or cfn-lint, which it runs, finds",
      { timeout: 180_000 },
      async () => {
        // it leaves its settings at home
        const home = mkdtempSync(join(tmpdir(), "lockkeeper-sam-"));
        onTestFinished(() => rmSync(home, { recursive: true, force: true }));
        const env = {
          PATH: process.env["PATH"] ?? "",
          HOME: home,
          SAM_CLI_TELEMETRY: "0",
          AWS_DEFAULT_REGION: "us-east-1",
          // it asks nobody, but would not begin without
          AWS_ACCESS_KEY_ID: "none",
          AWS_SECRET_ACCESS_KEY: "none",
        };
        const lint = ["validate", "--lint", "--template-file", file];
        const { stdout } = await promisify(execFile)(part("sam"), lint, { env });
        expect(stdout).toContain("is a valid SAM Template");
      },
    );
  });

  describe("the bucket's policy, for which no server here knows the conditions", () => {
    needs("versitygw");

    let server: S3Server;
    beforeAll(async () => {
      server = await startS3("versitygw");
    });
    afterAll(() => server?.stop());

    test("lets through each write that publishing makes, and none of them without its condition", async () => {
      const url = `${await server.createBucket()}/orders`;
      const { endpoint, writes } = await recordWrites(server.endpoint);
      const destination = await openSource(url, { s3: { ...server.options.s3, endpoint } });
      const keys = [makeKey()];
      const first = { "000001_a.up.sql": "create table a ();" };
      await publishTo(destination, first, { keys });
      await publishTo(destination, { ...first, "000002_b.up.sql": "create table b ();" }, { keys });

      const isHead = ({ key }: Write): boolean => key.endsWith("/head.json");
      expect(writes.filter(isHead).map(conditionOf)).toEqual(["if-none-match", "if-match"]);
      expect(writes.filter((write) => !isHead(write)).map(conditionOf)).toEqual(
        Array.from({ length: writes.length - 2 }, () => "if-none-match"),
      );
      const kinds = new Set(writes.map(({ key }) => key.split("/").at(-2)));
      expect(kinds).toEqual(new Set(["blobs", "manifests", "releases", "orders"]));
      for (const { key, headers } of writes) {
        expect(denying(key, headers), key).toEqual([]);
        expect(denying(key, {}), key).toContain("NothingIsReplacedUnseen");
      }
      const blob = writes.find(({ key }) => key.includes("/blobs/"));
      expect(denying(blob?.key ?? "", { "if-match": '"1"' })).toEqual(["ContentIsWrittenOnce"]);
    });
  });
});

/** A PUT as it came to the store. */
interface Write {
  /** below the bucket */
  readonly key: string;
  readonly headers: IncomingHttpHeaders;
}

/** Stands before a store until the test ends. */
async function recordWrites(
  upstream: string,
): Promise<{ readonly endpoint: string; readonly writes: readonly Write[] }> {
  const writes: Write[] = [];
  const server = createServer((incoming, answer) => {
    const { method, url = "/", headers } = incoming;
    if (method === "PUT")
      writes.push({ key: new URL(url, upstream).pathname.replace(/^\/[^/]+\//, ""), headers });
    const onward = request(new URL(url, upstream), { method, headers }, (answered) => {
      answer.writeHead(answered.statusCode ?? 502, answered.headers);
      answered.pipe(answer);
    });
    onward.on("error", () => answer.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, writes };
}

function conditionOf({ headers }: Write): string {
  return ["if-none-match", "if-match"].filter((name) => headers[name] !== undefined).join(" ");
}

interface Statement {
  readonly Sid: string;
  readonly Effect: string;
  readonly Action: string | readonly string[];
  readonly Resource: string | readonly string[];
  readonly Condition?: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/** Which statements of the policy deny a PutObject over TLS with these headers. */
function denying(key: string, headers: IncomingHttpHeaders): readonly string[] {
  const values = { "AWS::StackName": "orders-db", "AWS::Partition": "aws" };
  const resources = resolveTemplate(
    readFileSync(file, "utf8"),
    {},
    { ...values, "AWS::Region": "us-east-1", "AWS::AccountId": "1", "AWS::URLSuffix": "amazonaws.com" },
    new Proxy({}, { get: (_, name) => (name === "Releases" ? "bucket" : "elsewhere") }),
  );
  const document = resources.get("ReleasesPolicy")?.properties["PolicyDocument"] as {
    readonly Statement: readonly Statement[];
  };
  const request: Readonly<Record<string, string | undefined>> = {
    "s3:if-none-match": headers["if-none-match"],
    "s3:if-match": headers["if-match"],
    "s3:ObjectCreationOperation": "true",
    "aws:SecureTransport": "true",
  };
  const holds = (operator: string, name: string, wanted: string): boolean => {
    switch (operator) {
      case "Null":
        return String(request[name] === undefined) === wanted;
      case "Bool":
        return request[name] === wanted;
      case "BoolIfExists":
        return request[name] === undefined || request[name] === wanted;
      default:
        throw new Error(`${operator} is not known here`);
    }
  };
  return document.Statement.filter(({ Effect, Action, Resource, Condition = {} }) => {
    expect(Effect).toBe("Deny");
    const isOfAction = [Action].flat().some((action) => action === "s3:*" || action === "s3:PutObject");
    const isOfKey = [Resource].flat().some((resource) => matches(resource, `arn:aws:s3:::bucket/${key}`));
    const isMet = Object.entries(Condition).every(([operator, wanted]) =>
      Object.entries(wanted).every(([name, value]) => holds(operator, name, value)),
    );
    return isOfAction && isOfKey && isMet;
  }).map(({ Sid }) => Sid);
}

function matches(pattern: string, arn: string): boolean {
  return new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", ".*")}$`).test(arn);
}
