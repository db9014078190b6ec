import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { createDatabase } from "../support/database.ts";
import { makeKeys, publishTo, tempFolder } from "../support/release.ts";
import { receiver } from "../notify/receiver.ts";
import { run, start } from "./program.ts";

/** A bucket, a database and a configuration that says who is told. */
async function setUp(notify: string): Promise<{ readonly config: string; readonly folder: string }> {
  const folder = await tempFolder();
  onTestFinished(() => folder[Symbol.asyncDispose]());
  const { key } = makeKeys();
  await publishTo(folder.source, { "1_a.up.sql": "create table a (id int);" }, { keys: [key] });
  await writeFile(path.join(folder.path, "key.pub"), key.publicPem);
  const { url } = await createDatabase();
  const config = path.join(folder.path, "lockkeeper.yaml");
  await writeFile(
    config,
    `version: 1
trust: { prod: { keys: [key.pub] } }
${notify}
targets:
  orders-prod: { engine: postgres, stream: orders, source: ${folder.path}, trust: prod, database: { url: "${url}" } }
`,
  );
  return { config, folder: folder.path };
}

const policy = JSON.stringify({
  schema: "urn:lockkeeper:policy:v1",
  audience: "https://migrate.example",
  issuers: { ci: { issuer: "https://ci.example", jwksUri: "https://ci.example/jwks", algs: ["ES256"] } },
  rules: [
    { id: "ci", issuer: "ci", match: { sub: "x" }, allow: { targets: ["orders-prod"], actions: ["status"] } },
  ],
});

const secret = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;

test("the command line tells whom the configuration names, and tries until the end of its patience", async () => {
  const to = await receiver((_, before) => ({ status: before === 0 ? 503 : 204 }));
  const { config, folder } = await setUp(
    `notify: [{ webhook: { url: "${to.url}", secretFile: hook.secret }, on: [succeeded], targets: [orders-prod] }]`,
  );
  await writeFile(path.join(folder, "hook.secret"), `${secret}\n`);
  const up = ["up", "--target", "orders-prod", "--config", config];
  expect(await run(up, folder)).toMatchObject({ code: 0 });
  expect(to.received.map(({ json }) => [json.type, json.data.outcome])).toEqual([
    ["lockkeeper.run.succeeded.v1", "applied"],
    ["lockkeeper.run.succeeded.v1", "applied"],
  ]);
  expect(await run(up, folder)).toMatchObject({ code: 0 });
  expect(to.received).toHaveLength(2);
});

test("a receiver that is away, or a secret that cannot be read, is a warning and not the run's failure", async () => {
  const { config, folder } = await setUp(`notify:
  - { webhook: { url: "http://127.0.0.1:1/", secretFile: hook.secret }, on: [succeeded] }
  - { slack: { urlFile: absent.url } }`);
  await writeFile(path.join(folder, "hook.secret"), secret);
  const ran = await run(["up", "--target", "orders-prod", "--config", config], folder);
  expect(ran).toMatchObject({ code: 0, stdout: expect.stringContaining("1_a.up.sql") });
  expect(ran.stderr).toMatch(/nobody is notified: .*absent\.url/);
  expect(ran.stderr).toMatch(/webhook http:\/\/127\.0\.0\.1:1 was not told that run .* succeeded: /);
});

test("a server does not start on a secret that is none, nor on a target that is not there", async () => {
  const { config, folder } = await setUp(
    `notify: [{ webhook: { url: "https://hooks.example", secretFile: hook.secret } }]`,
  );
  await writeFile(path.join(folder, "hook.secret"), "hunter2");
  await writeFile(path.join(folder, "policy.json"), policy);
  const serve = ["serve", "--config", config, "--listen", "127.0.0.1:0"];
  await writeFile(config, `${await readFile(config, "utf8")}policy: policy.json\n`);
  const refused = start(serve, folder);
  expect(await refused.ended).toBe(2);
  expect(refused.said().stderr).toContain("whsec_");
  expect(refused.said().stderr).not.toContain("hunter2");
  const other = await setUp(`notify: [{ slack: { urlFile: x }, targets: [orders-prd] }]`);
  const mistaken = await run(["up", "--target", "orders-prod", "--config", other.config], other.folder);
  expect(mistaken.code).toBe(2);
  expect(mistaken.stderr).toContain('"orders-prd" is not in targets; did you mean orders-prod?');
});
