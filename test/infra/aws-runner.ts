import { execFile } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";

import { CloudFormationClient, DescribeStacksCommand } from "@aws-sdk/client-cloudformation";
import { CreateRoleCommand, IAMClient, PutRolePolicyCommand } from "@aws-sdk/client-iam";
import { CreateSecretCommand, SecretsManagerClient } from "@aws-sdk/client-secrets-manager";
import { AssumeRoleCommand, STSClient } from "@aws-sdk/client-sts";
import { expect } from "vitest";

import { startAws, type AwsAccount, type AwsKeys } from "../support/aws.ts";
import { createDatabase, type TestDatabase } from "../support/database.ts";
import { readDocument } from "../support/document.ts";
import { part } from "../support/parts.ts";
import { makeDoor, type Door } from "./door.ts";

const run = promisify(execFile);
const checkout = join(import.meta.dirname, "../..");
export const page = readDocument("infra/aws.md");

/** A runner that was set up as infra/aws.md says, with a database of its own. */
export interface AwsRunner extends AsyncDisposable {
  readonly account: AwsAccount;
  readonly database: TestDatabase;
  /** between the functions and the database */
  readonly door: Door;
  /** the stack's, by their names */
  readonly outputs: Readonly<Record<string, string>>;
  /** Somebody in a role, by its ARN or by the output that has it. */
  assume(role: string): Promise<AwsKeys>;
  /** Somebody whom IAM allows everything. */
  administrator(): Promise<AwsKeys>;
  /** Runs a command of the page in the runner's folder, as somebody. */
  command(
    text: string,
    keys: AwsKeys,
    variables?: Readonly<Record<string, string>>,
  ): Promise<{ readonly stdout: string; readonly stderr: string }>;
  /** What the functions have logged, oldest first. */
  log(): Promise<readonly Readonly<Record<string, unknown>>[]>;
  /** Lets the schedule's hour come. */
  sweepNow(): Promise<void>;
  /** Publishes what is now in `migrations`, after these were added, by the page's command; its digest. */
  publish(files: Readonly<Record<string, string>>): Promise<string>;
}

/** What a deployment has otherwise than the page's. */
export interface Deployment {
  /** parameters of the template, over those of the page */
  readonly parameters?: Readonly<Record<string, string>>;
  /** done before the stack is made */
  before?(account: AwsAccount): Promise<void>;
  /** changes a file of the page */
  readonly file?: (name: string, text: string) => string;
  /** files besides, relative to the runner's folder */
  readonly files?: Readonly<Record<string, string>>;
}

/** Follows the page up to a runner that waits for releases. The file needs `needs("ministack", "sam")`. */
export async function setUpAwsRunner(deployment: Deployment = {}): Promise<AwsRunner> {
  const [account, database] = await Promise.all([startAws(), createDatabase({ endsWith: "file" })]);
  const folder = mkdtempSync(join(tmpdir(), "lockkeeper-aws-"));
  const door = await makeDoor(database.url);
  const dispose = async (): Promise<void> => {
    await account.stop();
    await door.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    await deployment.before?.(account);
    const secrets = new SecretsManagerClient(account.as(account.root));
    const secret = await secrets.send(new CreateSecretCommand({ Name: "orders-db", SecretString: door.url }));
    await secrets.send(new CreateSecretCommand({ Name: "another", SecretString: "not for lockkeeper" }));
    const ours = (name: string, text: string): string =>
      (deployment.file ?? ((_, same) => same))(
        name,
        text
          .replaceAll(/arn:aws:secretsmanager:us-east-1:111122223333:secret:orders-db-\w+/g, secret.ARN ?? "")
          .replaceAll("111122223333", account.id),
      );
    const command = commandIn(folder, account);
    await command(page.block("sh", "run=bundle"), account.root, { cwd: checkout });
    for (const [language, name] of [
      ["yaml", "config/lockkeeper/lockkeeper.yaml"],
      ["json", "config/lockkeeper/policy.json"],
      ["toml", "samconfig.toml"],
    ] as const)
      writeFileSync(join(folder, name), ours(name, page.block(language, `file=${name}`)));
    for (const [name, text] of Object.entries(deployment.files ?? {}))
      writeFileSync(join(folder, name), text);
    await command(
      "lockkeeper keygen --out release.key && cp release.key.pub config/lockkeeper",
      account.root,
    );
    // It lays a function's layers beside its code, and knows no condition on how an object is written.
    const here = { ConfigFile: "../layer_0/lockkeeper/lockkeeper.yaml", RequireConditionalWrites: "false" };
    const parameters = Object.entries({ ...here, ...deployment.parameters });
    addParameters(
      join(folder, "samconfig.toml"),
      ours("samconfig.toml", page.block("toml", "file=samconfig.toml")),
      parameters,
    );
    await command(page.block("sh", "run=deploy"), account.root);
    const outputs = await outputsOf(account);
    const sts = new STSClient(account.as(account.root));
    const assume = async (role: string): Promise<AwsKeys> => {
      const RoleArn = outputs[role] ?? role;
      const { Credentials: keys } = await sts.send(
        new AssumeRoleCommand({ RoleArn, RoleSessionName: "test" }),
      );
      return {
        accessKeyId: keys?.AccessKeyId ?? "",
        secretAccessKey: keys?.SecretAccessKey ?? "",
        sessionToken: keys?.SessionToken ?? "",
      };
    };
    /** Asks a service for which lockkeeper needs no client. */
    const ask = async (
      service: string,
      path: string,
      flags: readonly string[],
      body?: string,
    ): Promise<unknown> => {
      const user = `${account.root.accessKeyId}:${account.root.secretAccessKey}`;
      const signed = ["--aws-sigv4", `aws:amz:${account.region}:${service}`, "--user", user];
      const data = body === undefined ? [] : ["--data", body];
      const type = ["--header", "content-type: application/x-amz-json-1.1"];
      const quiet = ["--silent", "--show-error", "--fail-with-body", "--insecure"];
      const { stdout } = await run("curl", [
        ...quiet,
        ...signed,
        ...type,
        ...flags,
        ...data,
        account.endpoint + path,
      ]);
      return JSON.parse(stdout) as unknown;
    };
    const publisher = await assume("PublisherRoleArn");
    return {
      account,
      database,
      door,
      outputs,
      assume,
      async administrator() {
        const iam = new IAMClient(account.as(account.root));
        const anybody = {
          Effect: "Allow",
          Principal: { AWS: `arn:aws:iam::${account.id}:root` },
          Action: "sts:AssumeRole",
        };
        const anything = { Effect: "Allow", Action: "*", Resource: "*" };
        const document = (Statement: object): string => JSON.stringify({ Version: "2012-10-17", Statement });
        const RoleName = "administrator";
        await iam.send(new CreateRoleCommand({ RoleName, AssumeRolePolicyDocument: document(anybody) }));
        const PolicyDocument = document(anything);
        await iam.send(new PutRolePolicyCommand({ RoleName, PolicyName: "all", PolicyDocument }));
        return assume(`arn:aws:iam::${account.id}:role/${RoleName}`);
      },
      command: (text, keys, variables = {}) =>
        command(text, keys, {
          variables: { BUCKET: outputs["BucketName"] ?? "", URL: outputs["Url"] ?? "", ...variables },
        }),
      async log() {
        const body = JSON.stringify({ logGroupName: outputs["LogGroupName"] });
        const answer = await ask(
          "logs",
          "/",
          ["--header", "x-amz-target: Logs_20140328.FilterLogEvents"],
          body,
        );
        const { events } = answer as { readonly events: readonly { readonly message: string }[] };
        return events.flatMap(({ message }) =>
          message.startsWith("{") ? [JSON.parse(message) as Record<string, unknown>] : [],
        );
      },
      async sweepNow() {
        const { Target } = (await ask("scheduler", "/schedules/orders-db-sweep", [])) as {
          readonly Target: object;
        };
        // MiniStack fires a schedule whose hour was changed no more: a twin of it, then
        const ScheduleExpression = `at(${new Date().toISOString().slice(0, 19)})`;
        const twin = { ScheduleExpression, FlexibleTimeWindow: { Mode: "OFF" }, Target };
        await ask("scheduler", "/schedules/orders-db-sweep-now", [], JSON.stringify(twin));
      },
      async publish(files) {
        for (const [name, text] of Object.entries(files)) {
          mkdirSync(join(folder, "migrations"), { recursive: true });
          writeFileSync(join(folder, "migrations", name), text);
        }
        const { stdout } = await command(page.block("sh", "run=publish"), publisher, {
          variables: { BUCKET: outputs["BucketName"] ?? "" },
        });
        return /sha256:[0-9a-f]{64}/.exec(stdout)?.[0] ?? stdout;
      },
      [Symbol.asyncDispose]: dispose,
    };
  } catch (thrown) {
    await dispose();
    throw thrown;
  }
}

/** Runs commands as a person with SAM and lockkeeper installed has them. */
function commandIn(folder: string, account: AwsAccount) {
  const bin = join(folder, ".bin");
  mkdirSync(bin);
  const program = `exec "${process.execPath}" "${join(checkout, "src/bin/cli.ts")}" "$@"`;
  writeFileSync(join(bin, "lockkeeper"), `#!/bin/sh\n${program}\n`);
  chmodSync(join(bin, "lockkeeper"), 0o755);
  // curl believes that MiniStack is AWS: addresses below amazonaws.com and on.aws are its own
  writeFileSync(join(folder, ".curlrc"), `connect-to = "::${new URL(account.endpoint).host}"\ninsecure\n`);
  const path = [bin, dirname(process.execPath), dirname(part("sam")), process.env["PATH"] ?? ""];
  return async (
    text: string,
    keys: AwsKeys,
    {
      cwd = folder,
      variables = {},
    }: { readonly cwd?: string; readonly variables?: Readonly<Record<string, string>> } = {},
  ) => {
    const env = {
      PATH: path.join(":"),
      HOME: folder,
      RUNNER: folder,
      SAM_CLI_TELEMETRY: "0",
      ...account.environment(keys),
      ...variables,
    };
    return run("sh", ["-e", "-c", text], { cwd, env, maxBuffer: 1 << 24 });
  };
}

function addParameters(file: string, text: string, parameters: readonly (readonly [string, string])[]): void {
  const isNamed = (line: string): boolean => parameters.some(([name]) => line.startsWith(`  "${name}=`));
  const kept = text.split("\n").filter((line) => !isNamed(line));
  const added = parameters.map(([name, value]) => `  "${name}=${value}",`);
  const at = kept.indexOf("parameter_overrides = [");
  expect(at).toBeGreaterThan(0);
  writeFileSync(file, kept.toSpliced(at + 1, 0, ...added).join("\n"));
}

async function outputsOf(account: AwsAccount): Promise<Readonly<Record<string, string>>> {
  const client = new CloudFormationClient(account.as(account.root));
  const { Stacks: [stack] = [] } = await client.send(new DescribeStacksCommand({ StackName: "orders-db" }));
  expect(stack?.StackStatus).toMatch(/^(CREATE|UPDATE)_COMPLETE$/);
  return Object.fromEntries(
    (stack?.Outputs ?? []).map((one) => [one.OutputKey ?? "", one.OutputValue ?? ""]),
  );
}

/** Waits for something that others bring about; the test's own time bounds it. */
export async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await pause(50);
}

/** The runs that the database knows of, oldest first. */
export async function runsOf({ database }: AwsRunner): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const [there] = await database.query("SELECT to_regclass('lockkeeper.runs') AS runs");
  if (there?.["runs"] === null) return [];
  return database.query(
    "SELECT status, outcome, trigger, caller ->> 'issuer' AS issuer, attempt FROM lockkeeper.runs ORDER BY created_at",
  );
}

/** How the run of an answer has ended; the answer itself may have been given before. */
export async function endOf({ database }: AwsRunner, answer: string): Promise<string> {
  const { id } = JSON.parse(answer) as { readonly id: string };
  const [run] = await database.query("SELECT status, outcome FROM lockkeeper.runs WHERE id = $1", [id]);
  return `${String(run?.["status"])} ${String(run?.["outcome"])}`;
}

/** Tables that migrations have made. */
export async function tablesOf({ database }: AwsRunner): Promise<readonly unknown[]> {
  const rows = await database.query("SELECT tablename FROM pg_tables WHERE schemaname = 'public'");
  return rows.map((row) => row["tablename"]);
}
