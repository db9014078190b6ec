import { execFile } from "node:child_process";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { bundleLambda } from "../../infra/aws/bundle.ts";
import { folderWith } from "../bin/program.ts";
import { createDatabase } from "../support/database.ts";
import { folderSource, makeKeys, publishTo } from "../support/release.ts";
import { startCollector } from "./collector.ts";

/** One invocation, and then the process is gone as one that is frozen for good. */
const invoke = `
const { handler } = await import(process.argv[1]);
const context = { awsRequestId: "3f1c", invokedFunctionArn: "arn:aws:lambda:eu-west-1:123456789012:function:lockkeeper", getRemainingTimeInMillis: () => 60_000 };
await handler({ lockkeeper: { wake: { target: "orders" } } }, context);
process.kill(process.pid, "SIGKILL");
`;

test(
  "a function tells the collector of its run before it answers, from the bundle that is deployed",
  { timeout: 180_000 },
  async () => {
    const database = await createDatabase();
    const { key } = makeKeys();
    const folder = await folderWith({
      "alice.pub": key.publicPem,
      "db-url": database.url,
      "bucket/.keep": "",
      "lockkeeper.yaml": `version: 1
trust: { team: { keys: [alice.pub] } }
targets:
  orders: { engine: postgres, stream: orders, source: ./bucket, trust: team, database: { urlFile: db-url } }
`,
    });
    await publishTo(
      folderSource(join(folder, "bucket")),
      { "1_users.up.sql": "create table users (id int);" },
      { keys: [key] },
    );
    await bundleLambda(join(folder, "function"));
    const collector = await startCollector();
    const child = promisify(execFile)(
      process.execPath,
      ["--input-type=module", "-e", invoke, pathToFileURL(join(folder, "function/index.mjs")).href],
      {
        env: {
          LOCKKEEPER_CONFIG: join(folder, "lockkeeper.yaml"),
          OTEL_EXPORTER_OTLP_ENDPOINT: collector.url,
          AWS_LAMBDA_FUNCTION_NAME: "lockkeeper",
        },
      },
    );
    await expect(child).rejects.toMatchObject({ signal: "SIGKILL", stderr: "" });
    expect(await database.query("select to_regclass('users') is not null as there")).toEqual([
      { there: true },
    ]);
    const root = await collector.span("lockkeeper.run orders");
    expect(root.attributes).toMatchObject({
      "lockkeeper.outcome": "applied",
      "lockkeeper.trigger": "converge",
    });
    expect(collector.spans().map(({ name }) => name)).toContain("lockkeeper.migration 1_users.up.sql");
    expect(collector.resource()).toMatchObject({ "service.name": "lockkeeper", "faas.name": "lockkeeper" });
    expect(collector.metrics()).toContain("lockkeeper.runs");
    const { stdout = "" } = (await child.catch((error: unknown) => error)) as { readonly stdout?: string };
    const done = stdout.split("\n").find((line) => line.includes('"event":"run.done"')) ?? "{}";
    expect(JSON.parse(done)).toMatchObject({
      trace_id: root.traceId,
      span_id: root.spanId,
      aws_request_id: "3f1c",
    });
  },
);
