import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import * as v from "valibot";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { loadConfig } from "../../src/bin/config.ts";
import { findVerb } from "../../src/cli/verbs.ts";
import { openDriver } from "../../src/driver/open.ts";
import { parseAddress } from "../../src/driver/postgres/address.ts";
import { cloudRunJobName } from "../../src/host/cloud-run-hand-over.ts";
import { createDatabase } from "../support/database.ts";
import { readDocument } from "../support/document.ts";
import { needs, part } from "../support/parts.ts";
import { leaseOptions, never } from "../support/steps.ts";
import { run as lockkeeper } from "../bin/program.ts";

const infra = join(import.meta.dirname, "../../infra");
const folder = join(infra, "google-cloud");
const page = readFileSync(join(infra, "google-cloud.md"), "utf8");
const commands = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, body]) => body).join("\n");
const terraform = readdirSync(join(infra, "terraform/google-cloud"))
  .filter((name) => name.endsWith(".tf"))
  .map((name) => readFileSync(join(infra, "terraform/google-cloud", name), "utf8"))
  .join("\n");

const texts = v.array(v.string());
const container = v.strictObject({
  image: v.string(),
  args: texts,
  ports: v.optional(v.array(v.strictObject({ name: v.literal("http1"), containerPort: v.number() }))),
  env: v.array(v.strictObject({ name: v.string(), value: v.string() })),
  resources: v.strictObject({ limits: v.strictObject({ cpu: v.string(), memory: v.string() }) }),
  startupProbe: v.optional(
    v.looseObject({ httpGet: v.strictObject({ path: v.string(), port: v.number() }) }),
  ),
  livenessProbe: v.optional(
    v.looseObject({ httpGet: v.strictObject({ path: v.string(), port: v.number() }) }),
  ),
});
const annotations = v.record(v.string(), v.string());

/** Of https://cloud.google.com/run/docs/reference/yaml/v1 what is used here; anything else is a mistake. */
const serviceShape = v.strictObject({
  apiVersion: v.literal("serving.knative.dev/v1"),
  kind: v.literal("Service"),
  metadata: v.strictObject({ name: v.string(), annotations }),
  spec: v.strictObject({
    template: v.strictObject({
      metadata: v.strictObject({ annotations }),
      spec: v.strictObject({
        serviceAccountName: v.string(),
        containerConcurrency: v.number(),
        timeoutSeconds: v.pipe(v.number(), v.maxValue(3600)),
        containers: v.tuple([container]),
      }),
    }),
  }),
});
const jobShape = v.strictObject({
  apiVersion: v.literal("run.googleapis.com/v1"),
  kind: v.literal("Job"),
  metadata: v.strictObject({ name: v.string() }),
  spec: v.strictObject({
    template: v.strictObject({
      metadata: v.strictObject({ annotations }),
      spec: v.strictObject({
        parallelism: v.number(),
        taskCount: v.number(),
        template: v.strictObject({
          spec: v.strictObject({
            serviceAccountName: v.string(),
            maxRetries: v.number(),
            timeoutSeconds: v.pipe(v.string(), v.regex(/^\d+$/)),
            containers: v.tuple([container]),
          }),
        }),
      }),
    }),
  }),
});

const service = v.parse(serviceShape, read("service.yaml"));
const jobs = ["job.yaml", "sweep.yaml"].map((name) => v.parse(jobShape, read(name)));
const [served] = service.spec.template.spec.containers;
const worked = jobs.map((job) => job.spec.template.spec.template.spec);

describe("the files for Cloud Run", () => {
  test("are one image, account and instance, in every place", () => {
    const specs = [service.spec.template.spec, ...worked];
    expect(new Set(specs.flatMap(({ containers }) => containers.map(({ image }) => image))).size).toBe(1);
    expect(new Set(specs.map(({ serviceAccountName }) => serviceAccountName))).toEqual(
      new Set(["lockkeeper-runner@my-project.iam.gserviceaccount.com"]),
    );
    const of = [service.spec.template, ...jobs.map((job) => job.spec.template)];
    expect(
      new Set(of.map(({ metadata }) => metadata.annotations["run.googleapis.com/cloudsql-instances"])),
    ).toEqual(new Set(["my-project:europe-west1:orders"]));
  });

  test("call verbs and flags that there are", async () => {
    for (const { args } of [served, ...worked.flatMap(({ containers }) => containers)]) {
      const verb = await findVerb(args);
      const flags = args.filter((word) => word.startsWith("--")).map((word) => word.slice(2));
      expect([args[0], verb?.flags.map(({ name }) => name)]).toEqual([
        verb?.name,
        expect.arrayContaining(flags),
      ]);
    }
  });

  test("listen on the image's port, and are asked whether they live where the server answers", async () => {
    const dockerfile = readFileSync(join(infra, "../Dockerfile"), "utf8");
    expect(dockerfile).toContain(`0.0.0.0:${served.ports?.[0]?.containerPort}`);
    const paths = [served.startupProbe?.httpGet, served.livenessProbe?.httpGet];
    expect(paths).toEqual([
      { path: "/health/ready", port: 8080 },
      { path: "/health/live", port: 8080 },
    ]);
    // names that end like this are Cloud Run's own
    for (const at of paths) expect(at?.path).not.toMatch(/z$/);
  });

  test("leave ten minutes between a deadline and the time-out", () => {
    for (const { containers, timeoutSeconds } of worked) {
      const [{ args }] = containers;
      expect(args.at(-1)).toBe(`${Number(timeoutSeconds) / 60 - 10}m`);
      expect(Number(timeoutSeconds)).toBeLessThanOrEqual(168 * 3600);
    }
  });

  test("carry a configuration and a policy that load, whose job and database are those of the files", async () => {
    const file = join(folder, "config/lockkeeper.yaml");
    const config = await loadConfig(file);
    expect(config.work?.cloudRunJob).toMatch(cloudRunJobName);
    expect(config.work?.cloudRunJob.split("/").at(-1)).toBe(jobs[0]?.metadata.name);
    const database = config.targets.get("orders-prod")?.database;
    const url = database?.url.kind === "text" ? database.url.url : "";
    const token = { mayStayLocal: true, hint: "", make: () => Promise.resolve("t") };
    expect(parseAddress(url, token)).toMatchObject({
      host: "/cloudsql/my-project:europe-west1:orders",
      user: "lockkeeper-runner@my-project.iam",
      tls: "disable",
    });
    expect(page).toContain(url);
    const ask = async (target: string, action: string) => {
      const claims = join(import.meta.dirname, "google-push-claims.json");
      const argv = [
        "policy",
        "check",
        "--config",
        file,
        "--claims",
        claims,
        "--target",
        target,
        "--action",
        action,
      ];
      return (await lockkeeper([...argv, "--output", "json"], folder)).code;
    };
    expect([await ask("orders-prod", "wake"), await ask("orders-prod", "apply")]).toEqual([0, 23]);
  });
});

describe("the page for Google Cloud", () => {
  test("has a user of the instance migrate by what it says to type", async () => {
    await using database = await createDatabase({ endsWith: "file" });
    const suffix = database.name.slice(-8);
    const names = {
      "lockkeeper-runner@my-project.iam": `lockkeeper-runner@${suffix}.iam`,
      orders_owner: `orders_owner_${suffix}`,
    };
    const typed = Object.entries(names)
      .reduce(
        (text, [name, ours]) => text.replaceAll(name, ours),
        readDocument("infra/google-cloud.md").block("sql", "iam-user"),
      )
      .replaceAll("DATABASE orders ", `DATABASE ${database.name} `);
    const user = names["lockkeeper-runner@my-project.iam"];
    await database.query(`CREATE ROLE ${names.orders_owner} NOLOGIN`);
    await database.query(`CREATE ROLE "${user}" LOGIN PASSWORD 'token'`);
    await database.query(`GRANT CREATE ON DATABASE ${database.name} TO ${names.orders_owner}`);
    await database.query(typed);
    const url = new URL(database.url);
    const driver = await openDriver({
      engine: "postgres",
      shown: "",
      url: () =>
        Promise.resolve(
          `postgres://${encodeURIComponent(user)}@${url.host}/${database.name}?sslmode=disable`,
        ),
      token: { mayStayLocal: true, hint: "", make: () => Promise.resolve("token") },
    });
    await driver.withLease(leaseOptions(), () => Promise.resolve());
    const owners = `SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'lockkeeper'`;
    expect(await database.query(owners)).toEqual([{ tableowner: names.orders_owner }]);
    expect((await driver.state("orders", never)).exists).toBe(true);
    await driver.close();
    await database.query(
      `DROP OWNED BY ${names.orders_owner}, "${user}"; DROP ROLE "${user}"; DROP ROLE ${names.orders_owner}`,
    );
  });

  test("names files that there are, and accounts, jobs, topics and subscriptions by the names of the files", () => {
    for (const [, path = ""] of page.matchAll(/\]\(([^)#:]+)\)/g))
      expect(() => readdirOrFile(join(infra, path)), path).not.toThrow();
    for (const { metadata } of jobs) expect(commands).toContain(`/${metadata.name}:run`);
    for (const file of ["job.yaml", "sweep.yaml", "service.yaml"])
      expect(commands).toContain(`replace ${file}`);
  });
});

describe("the Terraform module for Google Cloud", () => {
  needs("terraform");

  test("is written as terraform fmt writes", { timeout: 60_000 }, async () => {
    const env = { ...process.env, CHECKPOINT_DISABLE: "1", TF_CLI_CONFIG_FILE: "" };
    const argv = ["fmt", "-check", "-recursive", "-diff", join(infra, "terraform/google-cloud")];
    await promisify(execFile)(part("terraform"), argv, { env });
  });

  test("gives the roles that the page gives, and makes the accounts that it makes", () => {
    const roles = (text: string): readonly string[] =>
      [...new Set(text.match(/\broles\/[a-z]+\.[A-Za-z]+/g))].toSorted();
    // secrets are said in words: only some have any
    const ofPage = roles(commands + page.slice(page.indexOf("**Secrets**"), page.indexOf("## What you see")));
    expect(roles(terraform)).toEqual(ofPage);
    expect(ofPage).toHaveLength(8);
    const accounts = (text: string, pattern: RegExp): readonly string[] =>
      [...new Set([...text.matchAll(pattern)].map(([, name = ""]) => name))].toSorted();
    const made = accounts(commands, /service-accounts create (\S+)/g);
    expect(made).toEqual(["lockkeeper-cron", "lockkeeper-push", "lockkeeper-runner"]);
    expect(accounts(terraform, /^ {4}(lockkeeper-\S+)\s+= "[A-Z]/gm)).toEqual(made);
    expect(terraform).toContain("storage.objects.delete");
  });

  test("has the jobs' arguments, time-outs and tries of the files", () => {
    for (const job of jobs) {
      const { containers, timeoutSeconds, maxRetries } = job.spec.template.spec.template.spec;
      const args = containers[0].args.map((word) => JSON.stringify(word)).join(", ");
      expect(terraform.replace(/ +/g, " ")).toContain(
        `${job.metadata.name} = { args = [${args}], timeout = "${timeoutSeconds}s", retries = ${maxRetries} }`,
      );
    }
    const { timeoutSeconds, containerConcurrency } = service.spec.template.spec;
    const flat = terraform.replace(/ +/g, " ");
    expect(flat).toContain(`timeout = "${timeoutSeconds}s"`);
    expect(flat).toContain(`max_instance_request_concurrency = ${containerConcurrency}`);
    expect(flat).toContain("invoker_iam_disabled = true");
    expect(service.metadata.annotations["run.googleapis.com/invoker-iam-disabled"]).toBe("true");
  });

  test("has the page's subscription, notification and schedules", () => {
    const flat = terraform.replace(/ +/g, " ");
    for (const [flag, line] of [
      ["--ack-deadline=60", "ack_deadline_seconds = 60"],
      ["--min-retry-delay=10s", 'minimum_backoff = "10s"'],
      ["--max-retry-delay=600s", 'maximum_backoff = "600s"'],
      ["--max-delivery-attempts=20", "max_delivery_attempts = 20"],
      ["--expiration-period=never", 'ttl = ""'],
      ["--payload-format=none", 'payload_format = "NONE"'],
      ["--event-types=OBJECT_FINALIZE", 'event_types = ["OBJECT_FINALIZE"]'],
      ["--object-prefix=orders/head.json", 'object_name_prefix = "${each.key}/head.json"'],
      ["--message-retention-duration=7d", 'message_retention_duration = "604800s"'],
      ["--soft-delete-duration=30d", "retention_duration_seconds = 2592000"],
      ['--schedule="*/15 * * * *"', 'default = "*/15 * * * *"'],
      ['--schedule="7 * * * *"', 'lockkeeper-work = "7 * * * *"'],
    ] as const) {
      expect(commands).toContain(flag);
      expect(flat).toContain(line);
    }
  });
});

function read(name: string): unknown {
  return parse(readFileSync(join(folder, name), "utf8"));
}

function readdirOrFile(path: string): unknown {
  try {
    return readdirSync(path);
  } catch {
    return readFileSync(path);
  }
}
