import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { front } from "../http/front.ts";
import { createWorld, openBarrier, orders, users } from "../http/world.ts";
import type { World } from "../http/world.ts";
import { infra } from "./pipeline.ts";

// Spinnaker, Harness and Jenkins' plugin make their requests themselves: here they are made as the files say, and the
// answers are read as those files say that they are.

const server = "https://migrate.example";
const bad = { "1_bad.up.sql": "select nmae from pg_class;", "1_bad.down.sql": "select 1;" } as const;

function read(file: string): string {
  return readFileSync(join(infra, file), "utf8");
}

/** `$.progress.message`: names with dots between, which is all that the files need of JSONPath. */
function select(value: unknown, path: string): unknown {
  expect(path).toMatch(/^\$(?:\.[a-zA-Z]+)+$/);
  return path
    .split(".")
    .slice(1)
    .reduce<unknown>((inner, name) => (inner as Record<string, unknown> | null)?.[name], value);
}

describe("the stages for Spinnaker", () => {
  /** Fields that Orca binds: PreconfiguredWebhook in orca-webhook's WebhookProperties. */
  const fields = `enabled label description type parameters url customHeaders sensitiveHeaders parameterValues
    parameterData method payload failFastStatusCodes waitForCompletion statusUrlResolution statusUrlJsonPath
    statusJsonPath progressJsonPath successStatuses canceledStatuses terminalStatuses permissions signalCancellation
    cancelEndpoint cancelMethod cancelPayload`.split(/\s+/);
  interface Stage {
    readonly type: string;
    readonly label: string;
    readonly url: string;
    readonly method: string;
    readonly customHeaders: Readonly<Record<string, readonly string[]>>;
    readonly payload: string;
    readonly waitForCompletion: boolean;
    readonly statusUrlResolution: string;
    readonly statusJsonPath: string;
    readonly progressJsonPath: string;
    readonly successStatuses: string;
    readonly canceledStatuses: string;
    readonly terminalStatuses: string;
    readonly failFastStatusCodes: readonly number[];
    readonly parameters: readonly { readonly name: string }[];
  }
  const { webhook } = parse(read("spinnaker/orca-local.yml")) as {
    readonly webhook: { readonly preconfigured: readonly Stage[] };
  };
  const [token, apply] = webhook.preconfigured;
  if (token === undefined || apply === undefined) throw new Error("there are not two stages");

  /** The stage's request, its expressions filled in. */
  async function request(world: World, url: string, release: string): Promise<Response> {
    const values: Readonly<Record<string, string>> = { target: "orders", release };
    const bearer = await world.token();
    const fill = (text: string): string =>
      text
        .replace(/\$\{parameterValues\['(\w+)'\]\}/g, (_, name: string) => values[name] ?? "")
        .replace("${execution.id}", "01KA")
        .replace(`\${#stage('${token?.label ?? ""}').context.webhook.body.access_token}`, bearer);
    expect(apply?.url.startsWith(server)).toBe(true);
    return fetch(fill(apply?.url ?? "").replace(server, url), {
      method: apply?.method ?? "",
      headers: Object.entries(apply?.customHeaders ?? {}).map(
        ([name, [value = ""]]) => [name, fill(value)] as [string, string],
      ),
      body: fill(apply?.payload ?? ""),
    });
  }

  /** As MonitorWebhookTask polls: the status's text against each list. */
  async function follow(world: World, url: string, begun: Response): Promise<string> {
    expect([200, 202]).toContain(begun.status);
    const address = begun.headers.get("location") ?? "";
    // absolute, below publicUrl
    expect(address).toMatch(/^https:\/\/migrate\.test\/base\/v1\/runs\/orders\.01/);
    for (;;) {
      const answer = await fetch(address.replace("https://migrate.test/base", url), {
        headers: { authorization: `Bearer ${await world.token()}` },
      });
      expect(answer.status).toBe(200);
      const body: unknown = await answer.json();
      const status = String(select(body, apply?.statusJsonPath ?? ""));
      expect(String(select(body, apply?.progressJsonPath ?? ""))).not.toBe("");
      if (listed(apply?.successStatuses).includes(status)) return "succeeded";
      if (listed(apply?.canceledStatuses).includes(status)) return "canceled";
      if (listed(apply?.terminalStatuses).includes(status)) return "terminal";
      await pause(50);
    }
  }

  const listed = (text = ""): readonly string[] => text.split(",").map((word) => word.trim());

  test("have only fields that Orca knows, and end at each status that a run can end with", () => {
    for (const stage of webhook.preconfigured)
      for (const field of Object.keys(stage)) expect(fields).toContain(field);
    const ends = [apply.successStatuses, apply.canceledStatuses, apply.terminalStatuses].flatMap(listed);
    expect(new Set(ends)).toEqual(new Set(["succeeded", "canceled", "failed"]));
    expect(ends).toHaveLength(3);
    expect(apply).toMatchObject({ waitForCompletion: true, statusUrlResolution: "locationHeader" });
    expect(apply.customHeaders["Authorization"]?.[0]).toContain(`#stage('${token.label}')`);
    const used = [...apply.payload.matchAll(/parameterValues\['(\w+)'\]/g)].map(([, name]) => name);
    expect(new Set(used)).toEqual(new Set(apply.parameters.map(({ name }) => name)));
  });

  test("succeed with a run, fail with one, and fail fast where it is refused", async () => {
    const world = await createWorld();
    const { url } = await front(world);
    const release = await world.bucket.publish({ ...users, ...orders });
    expect(await follow(world, url, await request(world, url, release))).toBe("succeeded");
    // what has ended before it is answered says where to look as well
    const headers = { prefer: "wait=20" };
    const body = { target: "orders", action: "apply", release: { digest: release } };
    const ended = await world.send("POST", "/v1/runs", { body, headers });
    expect([ended.status, ended.headers.get("location")]).toEqual([200, ended.body.links.self]);
    const refused = await request(world, url, "sha256:1");
    expect(apply.failFastStatusCodes).toContain(refused.status);
    const broken = await createWorld();
    const other = await front(broken);
    const failing = await broken.bucket.publish(bad);
    expect(await follow(broken, other.url, await request(broken, other.url, failing))).toBe("terminal");
  });

  test("end as canceled when somebody cancels the run", async () => {
    const world = await createWorld();
    const { url } = await front(world);
    const barrier = await openBarrier(world);
    const begun = await request(world, url, await world.bucket.publish({ ...barrier.migration, ...orders }));
    await barrier.reached();
    const id = (begun.headers.get("location") ?? "").split("/").at(-1) ?? "";
    expect((await world.send("POST", `/v1/runs/${id}/cancel`, { body: {} })).status).toBe(202);
    await barrier.release();
    expect(await follow(world, url, begun)).toBe("canceled");
  });
});

describe("the steps for Harness", () => {
  interface Step {
    readonly name: string;
    readonly identifier: string;
    readonly spec: {
      readonly url: string;
      readonly method: string;
      readonly headers: readonly { readonly key: string; readonly value: string }[];
      readonly requestBody?: string;
      readonly assertion: string;
      readonly outputVariables?: readonly { readonly name: string; readonly value: string }[];
    };
  }
  const steps = (parse(read("harness/steps.yaml")) as readonly { readonly step: Step }[]).map(
    ({ step }) => step,
  );

  /** Codes that an assertion lets pass. */
  function passing({ spec }: Step): readonly number[] {
    expect(spec.assertion).toMatch(/^<\+httpResponseCode> == \d{3}(?: \|\| <\+httpResponseCode> == \d{3})*$/);
    return [...spec.assertion.matchAll(/\d{3}/g)].map(([code]) => Number(code));
  }

  /** Goes through the steps after the token's; gives the name of the one that failed, or nothing. */
  async function stage(world: World, url: string, release: string): Promise<string | undefined> {
    const known = new Map([
      ["pipeline.variables.target", "orders"],
      ["pipeline.variables.release", release],
      ["pipeline.executionId", `x${Date.now()}`],
      ["execution.steps.lockkeeper_token.output.outputVariables.token", await world.token()],
    ]);
    const fill = (text: string): string =>
      text.replace(/<\+([\w.]+)>/g, (_, name: string) => {
        const value = known.get(name);
        if (value === undefined) throw new Error(`nothing gives ${name}`);
        return value;
      });
    for (const step of steps.slice(1)) {
      const { spec } = step;
      // the token is in no address
      expect(spec.url).not.toContain("token");
      for (;;) {
        const answer = await fetch(fill(spec.url).replace(server, url), {
          method: spec.method,
          headers: spec.headers.map(({ key, value }) => [key, fill(value)] as [string, string]),
          ...(spec.requestBody === undefined ? {} : { body: fill(spec.requestBody) }),
        });
        const body = (await answer.json()) as Record<string, unknown>;
        if (passing(step).includes(answer.status)) {
          for (const { name, value } of spec.outputVariables ?? []) {
            const field = /^<\+json\.select\("(\w+)", httpResponseBody\)>$/.exec(value)?.[1] ?? "";
            known.set(
              `execution.steps.${step.identifier}.output.outputVariables.${name}`,
              String(body[field]),
            );
          }
          break;
        }
        if (step.identifier !== "lockkeeper_end" || answer.status !== 202) return step.name;
      }
    }
    return undefined;
  }

  test("pass with a run that succeeds, and fail with one that fails or is refused", async () => {
    const world = await createWorld();
    const { url } = await front(world, (request) => {
      // so that the second step has to wait for the end
      if (request.method === "POST") request.headers["prefer"] = "wait=0";
      return false;
    });
    expect(steps.map(({ identifier }) => identifier)).toEqual([
      "lockkeeper_token",
      "lockkeeper_apply",
      "lockkeeper_end",
      "lockkeeper_result",
    ]);
    const release = await world.bucket.publish(users);
    expect(await stage(world, url, release)).toBeUndefined();
    const failing = await world.bucket.publish({ ...users, "2_bad.up.sql": bad["1_bad.up.sql"] });
    expect(await stage(world, url, failing)).toBe("lockkeeper result");
    expect(await stage(world, url, "sha256:1")).toBe("lockkeeper apply");
  });
});

describe("the Jenkinsfile without Docker", () => {
  const text = read("jenkins/Jenkinsfile.http-request");
  const codes = /validResponseCodes: '([\d,]+)'/.exec(text)?.[1]?.split(",").map(Number) ?? [];
  const paths = [...text.matchAll(/run\((["'])([^"']+)\1/g)].map(([, , path = ""]) => path);

  /** The build: as the file's loop goes. */
  async function build(world: World, url: string, release: string): Promise<string> {
    const [begin = "", look = ""] = paths;
    const ask = async (path: string, init: RequestInit = {}): Promise<Response> =>
      fetch(`${url}${path}`, {
        ...init,
        headers: {
          authorization: `Bearer ${await world.token()}`,
          "idempotency-key": "jenkins-orders-1",
          prefer: "wait=0",
          ...(init.body === undefined ? {} : { "content-type": "application/json" }),
        },
      });
    const body = JSON.stringify({ target: "orders", action: "apply", release: { digest: release } });
    let answer = await ask(begin, { method: "POST", body });
    if (!codes.includes(answer.status)) return `failed by ${answer.status}`;
    const { id } = (await answer.json()) as { readonly id: string };
    while (answer.status === 202) {
      answer = await ask(look.replace("${id}", id));
      if (!codes.includes(answer.status)) return `failed by ${answer.status}`;
    }
    return `ended by ${answer.status}`;
  }

  test("asks where it may, ends with the run, and fails by the status code", async () => {
    expect(paths).toEqual(["/v1/runs?gate=1", "/v1/runs/${id}/gate?wait=20"]);
    expect(codes).toEqual([200, 202]);
    const world = await createWorld();
    const { url } = await front(world);
    expect(await build(world, url, await world.bucket.publish(users))).toBe("ended by 200");
    const broken = await createWorld();
    const other = await front(broken);
    expect(await build(broken, other.url, await broken.bucket.publish(bad))).toBe("failed by 409");
  });
});
