import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { needs, part } from "../support/parts.ts";
import { resolveTemplate, type Parameters, type ResolvedResource } from "./resolved-template.ts";

const run = promisify(execFile);
const infra = join(import.meta.dirname, "../../infra");
const module = join(infra, "terraform/aws");

const key = "arn:aws:kms:us-east-1:111122223333:key/11111111-2222-3333-4444-555555555555";
const secret = "arn:aws:secretsmanager:us-east-1:111122223333:secret:orders-db-a1B2c3";
const user = "arn:aws:rds-db:us-east-1:111122223333:dbuser:db-ABCDEFGHIJKL01234/lockkeeper_runner";

/** The same wishes, as SAM's parameters and as the variables of our documents in Terraform. */
const wishes: readonly {
  readonly name: string;
  readonly parameters: Parameters;
  readonly variables: Readonly<Record<string, unknown>>;
}[] = [
  {
    name: "nothing said",
    parameters: {},
    variables: { by_eventbridge: false, require_conditional_writes: true, http_api_id: "a1b2c3d4" },
  },
  {
    name: "everything said",
    parameters: {
      Notifications: "eventbridge",
      BucketKeyArn: key,
      PublisherPrefix: "orders/",
      SubnetIds: "subnet-1,subnet-2",
      SecurityGroupIds: "sg-1",
      DatabaseUserArns: user,
      SecretArns: secret,
      SecretsKeyArn: key,
    },
    variables: {
      by_eventbridge: true,
      require_conditional_writes: true,
      bucket_key_arn: key,
      publisher_prefix: "orders/",
      in_vpc: true,
      database_user_arns: [user],
      secret_arns: [secret],
      secrets_key_arn: key,
      http_api_id: "a1b2c3d4",
    },
  },
  {
    name: "a bucket of one's own, which tools may copy into",
    parameters: { ExistingBucket: "ours", RequireConditionalWrites: "false", Access: "iam-function-url" },
    variables: { bucket: "ours", by_eventbridge: true, require_conditional_writes: false },
  },
];

const values = {
  "AWS::StackName": "orders-db",
  "AWS::Region": "us-east-1",
  "AWS::AccountId": "111122223333",
  "AWS::Partition": "aws",
  "AWS::URLSuffix": "amazonaws.com",
};
const bucket = "orders-db-releases-111122223333-us-east-1";
const attributes = attributesOf({
  Releases: bucket,
  "Queue.Arn": "arn:aws:sqs:us-east-1:111122223333:orders-db-releases",
  "LostExecutions.Arn": "arn:aws:sqs:us-east-1:111122223333:orders-db-lost-executions",
  "Front.Arn": "arn:aws:lambda:us-east-1:111122223333:function:orders-db-front",
  "NewHead.Arn": "arn:aws:events:us-east-1:111122223333:rule/orders-db-new-head",
  "Log.Arn": "arn:aws:logs:us-east-1:111122223333:log-group:/lockkeeper/orders-db:*",
  HttpApi: "a1b2c3d4",
});

describe("the Terraform module for AWS", () => {
  needs("terraform");

  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-terraform-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  // No provider can be fetched where the tests run: what needs none is taken by itself.
  const env = { ...process.env, CHECKPOINT_DISABLE: "1", TF_IN_AUTOMATION: "1", TF_CLI_CONFIG_FILE: "" };
  beforeAll(async () => {
    cpSync(join(module, "policies"), folder, { recursive: true });
    await run(part("terraform"), ["init", "-no-color", "-input=false"], { cwd: folder, env });
  }, 60_000);

  test("is written as terraform fmt writes, and its documents are valid", { timeout: 60_000 }, async () => {
    await run(part("terraform"), ["fmt", "-check", "-recursive", "-diff", module], { env });
    await run(part("terraform"), ["validate", "-no-color"], { cwd: folder, env });
  });

  test.for(wishes)(
    "gives exactly the rights that the SAM template gives, with $name",
    { timeout: 60_000 },
    async ({ parameters, variables }) => {
      const theirs = await documents(folder, variables, env);
      const resources = resolveTemplate(
        readFileSync(join(infra, "aws/template.yaml"), "utf8"),
        parameters,
        values,
        attributes,
      );
      const ours = {
        runner: documentOf(resources, "RunnerPolicy", "PolicyDocument"),
        front: inlineOf(resources, "FrontRole"),
        sweep: inlineOf(resources, "SweepRole"),
        publisher: documentOf(resources, "PublisherPolicy", "PolicyDocument"),
        queue: documentOf(resources, "QueuePolicy", "PolicyDocument"),
        ...(resources.has("UrlCallerPolicy")
          ? { url_caller: documentOf(resources, "UrlCallerPolicy", "PolicyDocument") }
          : {}),
        ...(resources.has("ApiCallerPolicy")
          ? { api_caller: documentOf(resources, "ApiCallerPolicy", "PolicyDocument") }
          : {}),
        ...(resources.has("ReleasesPolicy")
          ? { bucket: documentOf(resources, "ReleasesPolicy", "PolicyDocument") }
          : {}),
      };
      for (const [name, document] of Object.entries(ours))
        expect(withLists(theirs[name]), name).toEqual(withLists(document));
    },
  );

  test("sets the same limits, filters and alarms as the SAM template", () => {
    const text = ["main", "releases", "alarms", "access"]
      .map((name) => readFileSync(join(module, `${name}.tf`), "utf8"))
      .join("\n");
    const resources = resolveTemplate(
      readFileSync(join(infra, "aws/template.yaml"), "utf8"),
      {},
      values,
      attributes,
    );
    const alarms = [...resources.values()].filter(({ type }) => type === "AWS::CloudWatch::Alarm");
    expect(alarms).toHaveLength(8);
    for (const { properties } of alarms) {
      expect(text).toContain(`"${String(properties["AlarmDescription"])}"`);
      const name = String(properties["AlarmName"]).replace("orders-db-", "");
      expect(text).toMatch(new RegExp(`^ +${name} += \\{$`, "m"));
    }
    for (const { type, properties } of resources.values()) {
      if (type === "AWS::Logs::MetricFilter")
        expect(text).toContain(JSON.stringify(properties["FilterPattern"]));
    }
    const number = (resource: string, property: string): unknown =>
      resources.get(resource)?.properties[property];
    const settings = (name: string): string[] =>
      [...text.matchAll(new RegExp(`^ +${name} += (.*)$`, "gm"))].map(([, value = ""]) => value);
    expect(settings("timeout")).toEqual([
      String(number("Front", "Timeout")),
      String(number("Worker", "Timeout")),
      "each.value.timeout",
    ]);
    expect(settings("visibility_timeout_seconds")).toEqual([String(number("Queue", "VisibilityTimeout"))]);
    expect(Number(number("Queue", "VisibilityTimeout"))).toBe(6 * Number(number("Front", "Timeout")));
    expect(settings("filter_suffix")).toEqual(['"head.json"']);
    expect(settings("maxReceiveCount")).toEqual(["5"]);
  });
});

/** What Terraform makes of the documents, by their names. */
async function documents(
  folder: string,
  variables: Readonly<Record<string, unknown>>,
  env: NodeJS.ProcessEnv,
): Promise<Readonly<Record<string, unknown>>> {
  const state = mkdtempSync(join(folder, "state-"));
  const given = {
    name: "orders-db",
    bucket,
    aws: { partition: "aws", region: "us-east-1", account: "111122223333", dns_suffix: "amazonaws.com" },
    ...variables,
  };
  writeFileSync(join(state, "given.tfvars.json"), JSON.stringify(given));
  const where = `-state=${join(state, "terraform.tfstate")}`;
  const apply = ["apply", "-auto-approve", "-no-color", "-input=false", where];
  await run(part("terraform"), [...apply, `-var-file=${join(state, "given.tfvars.json")}`], {
    cwd: folder,
    env,
  });
  const { stdout } = await run(part("terraform"), ["output", "-json", where], { cwd: folder, env });
  const outputs = JSON.parse(stdout) as Record<string, { readonly value: string }>;
  return Object.fromEntries(
    Object.entries(outputs).map(([name, { value }]) => [name, JSON.parse(value) as unknown]),
  );
}

function documentOf(
  resources: ReadonlyMap<string, ResolvedResource>,
  name: string,
  property: string,
): unknown {
  return resources.get(name)?.properties[property];
}

/** The one document that a role has of its own. */
function inlineOf(resources: ReadonlyMap<string, ResolvedResource>, role: string): unknown {
  const policies = resources.get(role)?.properties["Policies"] as { readonly PolicyDocument: unknown }[];
  expect(policies).toHaveLength(1);
  return policies[0]?.PolicyDocument;
}

/** One action and a list of one are the same to IAM. */
function withLists(document: unknown): unknown {
  const { Statement } = document as { readonly Statement: readonly Readonly<Record<string, unknown>>[] };
  return Statement.map((statement) => ({
    ...statement,
    Action: [statement["Action"]].flat(),
    Resource: [statement["Resource"]].flat(),
  }));
}

function attributesOf(known: Readonly<Record<string, string>>): Readonly<Record<string, string>> {
  return new Proxy(known, {
    get: (target, name) => (typeof name === "string" ? (target[name] ?? `<${name}>`) : undefined),
  });
}
