import { readFileSync } from "node:fs";
import * as v from "valibot";
import { parse } from "yaml";
import { describe, expect, test } from "vitest";
import { configSchema } from "../../src/bin/config-schema.ts";

type JsonSchema = { readonly [key: string]: unknown };
const published: JsonSchema = JSON.parse(
  readFileSync(new URL("../../infra/config.schema.json", import.meta.url), "utf8"),
);

const minimal = `
version: 1
targets:
  orders: { engine: postgres, stream: orders, source: ./releases, database: { url: postgres://h/orders } }
`;

const secretArn = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:orders-AbCdEf";

const workload = '{ "oidc:a": { type: sigstore, trustDomain: p, issuer: "https://i", san: "https://s" } }';

/** Documents and whether the file's shape allows them. */
const documents: readonly (readonly [string, boolean, string])[] = [
  ["the smallest file", true, minimal],
  [
    "everything there is",
    true,
    `
version: 1
publicUrl: https://migrate.example/base
listen: 0.0.0.0:8080
metrics: 127.0.0.1:9464
policy: policy.json
work: { cloudRunJob: projects/my-project/locations/europe-west1/jobs/lockkeeper-work }
trust:
  prod:
    threshold: 2
    maxValidityDays: 30
    keys: [alice.pub, bob.pub]
    release: { staging: { threshold: 1 } }
    minVersion: 3
    revoked: { releases: ["sha256:${"0".repeat(64)}"] }
    epoch: 2
    identities:
      oidc:ci: { type: sigstore, trustDomain: public, issuer: "https://i", san: "https://s", oids: { 1.3.6.1.4.1.57264.1.15: "4" } }
    trustDomains: { public: trusted_root.json }
    timestamp: { keys: [clock.pub], threshold: 1 }
  managed: { root: 1.root.json, sha256: "${"0".repeat(64)}", minRootVersion: 2, trustDomains: {} }
s3: { endpoint: "http://127.0.0.1:9000", region: eu-west-1, pathStyle: true }
gcs: { endpoint: "http://127.0.0.1:4443" }
notify:
  - { webhook: { url: "https://hooks.example", secretFile: hook.secret } }
  - { webhook: { urlFile: hook.url, secretFile: hook.secret }, on: [failed, attention], targets: [orders-prod] }
  - { slack: { urlFile: slack.url }, on: [started, refused] }
  - { github: { repository: acme/shop, tokenFile: token, environment: prod, api: "https://github.example/api/v3" } }
targets:
  orders-prod:
    engine: postgres
    environment: production
    stream: orders
    source: s3://bucket/orders
    trust: prod
    format: golang-migrate
    database:
      urlFile: /run/secrets/db
      passwordFile: /run/secrets/password
      schema: migrations
      direct: { urlSecret: projects/p/secrets/direct, iam: rds, iamHost: "orders.abc.eu-west-1.rds.amazonaws.com:5433" }
    limits: { wait: 10m, lockTimeout: 5s, statementTimeout: 0, deadline: 15m }
    onFailure: rollback
    orphans: cancel
    services: { billing: orders-prod }
    dependencies: wait
    allowBreaking: true
    paused: true
    backup: { command: [pg_dump, --format=custom], timeout: 2h }
    s3: { region: us-east-1 }
    gcs: {}
`,
  ],
  ["no targets", false, "version: 1\n"],
  ["another version", false, minimal.replace("version: 1", "version: 2")],
  ["an unknown key at the top", false, `${minimal}colour: red\n`],
  ["an unknown key in a target", false, minimal.replace("stream:", "streem: x, stream:")],
  ["an unknown key in limits", false, minimal.replace("stream:", "limits: { waits: 1m }, stream:")],
  ["a duration in words", false, minimal.replace("stream:", "limits: { wait: ten }, stream:")],
  ["a bare number as a duration", false, minimal.replace("stream:", "limits: { wait: 10 }, stream:")],
  ["zero as text", true, minimal.replace("stream:", 'limits: { wait: "0" }, stream:')],
  ["two database URLs", false, minimal.replace("url:", "urlFile: x, url:")],
  ["no database URL", false, minimal.replace("url: postgres://h/orders", "")],
  ["a secret's URL", true, minimal.replace("url: postgres://h/orders", `urlSecret: ${secretArn}`)],
  ["a secret that is none", false, minimal.replace("url: postgres://h/orders", "urlSecret: orders-db")],
  ["a URL and a secret's", false, minimal.replace("url:", `urlSecret: ${secretArn}, url:`)],
  ["a password of a secret", true, minimal.replace("url:", `passwordSecret: ${secretArn}, url:`)],
  ["two passwords", false, minimal.replace("url:", `passwordFile: f, passwordSecret: ${secretArn}, url:`)],
  ["a password and a token", false, minimal.replace("url:", "passwordFile: f, iam: rds, url:")],
  ["a token of Cloud SQL", true, minimal.replace("url:", "iam: cloud-sql, url:")],
  ["a token of another platform", false, minimal.replace("url:", "iam: azure, url:")],
  ["an endpoint without a token", false, minimal.replace("url:", "iamHost: h, url:")],
  ["an endpoint of Cloud SQL", false, minimal.replace("url:", "iam: cloud-sql, iamHost: h, url:")],
  ["an endpoint with a path", false, minimal.replace("url:", "iam: rds, iamHost: h/d, url:")],
  ["an endpoint with port 0", false, minimal.replace("url:", 'iam: rds, iamHost: "h:0", url:')],
  ["work by nobody", false, `${minimal}work: {}\n`],
  ["work by a job's short name", false, `${minimal}work: { cloudRunJob: lockkeeper }\n`],
  ["the other engine", true, minimal.replace("engine: postgres", "engine: mongodb")],
  ["another engine", false, minimal.replace("engine: postgres", "engine: mysql")],
  ["a target's name with a space", false, minimal.replace("orders:", '"or ders":')],
  ["a public URL with a user", false, `${minimal}publicUrl: https://u:p@migrate.example\n`],
  ["a public URL that is none", false, `${minimal}publicUrl: migrate.example\n`],
  ["a listen address without a port", false, `${minimal}listen: localhost\n`],
  ["metrics without an address", false, `${minimal}metrics: true\n`],
  ["a trust without keys", false, `${minimal}trust: { prod: { keys: [] } }\n`],
  ["a trust of identities only", true, `${minimal}trust: { prod: { identities: ${workload} } }\n`],
  ["a trust of no identity", false, `${minimal}trust: { prod: { identities: {} } }\n`],
  ["an identity that is none", false, `${minimal}trust: { prod: { identities: { "oidc:a": {} } } }\n`],
  [
    "an identity under a key's name",
    false,
    `${minimal}trust: { prod: { identities: { "sha256:a": {} } } }\n`,
  ],
  ["a trust in nothing", false, `${minimal}trust: { prod: { threshold: 1 } }\n`],
  ["a root and keys", false, `${minimal}trust: { prod: { root: 1.root.json, keys: [a] } }\n`],
  ["a root and an epoch", false, `${minimal}trust: { prod: { root: 1.root.json, epoch: 2 } }\n`],
  ["keys and a root version", false, `${minimal}trust: { prod: { keys: [a], minRootVersion: 2 } }\n`],
  ["a root by a number", false, `${minimal}trust: { prod: { root: 1 } }\n`],
  ["a threshold of nothing", false, `${minimal}trust: { prod: { threshold: 0, keys: [a] } }\n`],
  [
    "a backup by a webhook",
    true,
    minimal.replace("stream:", "backup: { webhook: { url: https://b, headerFile: h } }, stream:"),
  ],
  ["a backup by nothing", false, minimal.replace("stream:", "backup: { timeout: 1h }, stream:")],
  [
    "a backup by two",
    false,
    minimal.replace("stream:", "backup: { command: [a], webhook: { url: https://b } }, stream:"),
  ],
  ["a backup's command as text", false, minimal.replace("stream:", "backup: { command: pg_dump }, stream:")],
  ["a backup's command without words", false, minimal.replace("stream:", "backup: { command: [] }, stream:")],
  ["another way with orphans", false, minimal.replace("stream:", "orphans: ignore, stream:")],
  ["another way to fail", false, minimal.replace("stream:", "onFailure: panic, stream:")],
  ["another way with dependencies", false, minimal.replace("stream:", "dependencies: hope, stream:")],
  ["a service without a target", false, minimal.replace("stream:", "services: { billing: [a] }, stream:")],
  ["breaking by a word", false, minimal.replace("stream:", "allowBreaking: maybe, stream:")],
  ["a pause by a word", false, minimal.replace("stream:", "paused: soon, stream:")],
  ["a message to nobody", false, `${minimal}notify: [{ on: [failed] }]\n`],
  [
    "a message to two",
    false,
    `${minimal}notify: [{ slack: { urlFile: a }, github: { repository: a/b, tokenFile: t } }]\n`,
  ],
  ["a message about nothing", false, `${minimal}notify: [{ slack: { urlFile: a }, on: [] }]\n`],
  [
    "a message about what does not happen",
    false,
    `${minimal}notify: [{ slack: { urlFile: a }, on: [lunch] }]\n`,
  ],
  ["Slack's URL in the open", false, `${minimal}notify: [{ slack: { url: "https://s" } }]\n`],
  ["a webhook without a secret", false, `${minimal}notify: [{ webhook: { url: "https://s" } }]\n`],
  [
    "a webhook at two places",
    false,
    `${minimal}notify: [{ webhook: { url: u, urlFile: f, secretFile: s } }]\n`,
  ],
  [
    "a repository by its URL",
    false,
    `${minimal}notify: [{ github: { repository: "https://g/a/b", tokenFile: t } }]\n`,
  ],
  ["an empty source", false, minimal.replace("./releases", '""')],
];

describe("the published JSON schema", () => {
  test.for(documents)("says the same as the program of %s", ([, isAllowed, text]) => {
    const value: unknown = parse(text);
    expect(v.safeParse(configSchema, value).success).toBe(isAllowed);
    expect(isValid(value, published)).toBe(isAllowed);
  });

  test("has exactly the program's keys, at every level", () => {
    expect(keysOfJson(published)).toEqual(keysOfValibot(configSchema));
  });
});

/** The part of JSON Schema 2020-12 that the file uses; an unknown keyword is an error, so that none goes unchecked. */
function isValid(value: unknown, schema: JsonSchema): boolean {
  return Object.entries(schema).every(([keyword, rule]) => {
    switch (keyword) {
      case "$schema":
      case "$id":
      case "$defs":
      case "title":
      case "description":
        return true;
      case "$ref":
        return isValid(value, resolve(String(rule)));
      case "type":
        return typeOf(value) === rule || (rule === "number" && typeOf(value) === "integer");
      case "const":
        return value === rule;
      case "enum":
        return (rule as unknown[]).includes(value);
      case "pattern":
        return typeof value !== "string" || new RegExp(String(rule), "u").test(value);
      case "minLength":
        return typeof value !== "string" || value.length >= Number(rule);
      case "minimum":
        return typeof value !== "number" || value >= Number(rule);
      case "maximum":
        return typeof value !== "number" || value <= Number(rule);
      case "minItems":
        return !Array.isArray(value) || value.length >= Number(rule);
      case "maxItems":
        return !Array.isArray(value) || value.length <= Number(rule);
      case "items":
        return !Array.isArray(value) || value.every((item) => isValid(item, rule as JsonSchema));
      case "minProperties":
        return !isObject(value) || Object.keys(value).length >= Number(rule);
      case "required":
        return !isObject(value) || (rule as string[]).every((name) => name in value);
      case "propertyNames":
        return !isObject(value) || Object.keys(value).every((name) => isValid(name, rule as JsonSchema));
      case "properties":
        return (
          !isObject(value) ||
          Object.entries(rule as object).every(
            ([name, inner]) => !(name in value) || isValid(value[name], inner),
          )
        );
      case "additionalProperties": {
        if (!isObject(value)) return true;
        const known = Object.keys(schema["properties"] ?? {});
        const others = Object.keys(value).filter((name) => !known.includes(name));
        return rule === false
          ? others.length === 0
          : others.every((name) => isValid(value[name], rule as JsonSchema));
      }
      case "anyOf":
        return (rule as JsonSchema[]).some((inner) => isValid(value, inner));
      case "oneOf":
        return (rule as JsonSchema[]).filter((inner) => isValid(value, inner)).length === 1;
      default:
        throw new Error(`keyword ${keyword} is not checked`);
    }
  });
}

function resolve(reference: string): JsonSchema {
  const name = reference.replace("#/$defs/", "");
  return (published["$defs"] as Record<string, JsonSchema>)[name] ?? {};
}

function typeOf(value: unknown): string {
  if (Array.isArray(value)) return "array";
  if (value === null) return "null";
  return Number.isInteger(value) ? "integer" : typeof value;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeOf(value) === "object";
}

type Keys = { readonly [name: string]: Keys | null };

function keysOfJson(schema: JsonSchema): Keys | null {
  if (typeof schema["$ref"] === "string") return keysOfJson(resolve(schema["$ref"]));
  if (isObject(schema["properties"])) {
    return Object.fromEntries(
      Object.entries(schema["properties"]).map(([name, inner]) => [name, keysOfJson(inner as JsonSchema)]),
    );
  }
  return isObject(schema["additionalProperties"])
    ? { "*": keysOfJson(schema["additionalProperties"]) }
    : null;
}

function keysOfValibot(schema: unknown): Keys | null {
  if (!isObject(schema)) return null;
  if ("wrapped" in schema) return keysOfValibot(schema["wrapped"]);
  // a map is checked before it is taken as a record, which would drop some names
  if (schema["type"] === "unknown" && Array.isArray(schema["pipe"]))
    return keysOfValibot(schema["pipe"].at(-1));
  if (isObject(schema["entries"])) {
    return Object.fromEntries(
      Object.entries(schema["entries"]).map(([name, inner]) => [name, keysOfValibot(inner)]),
    );
  }
  return schema["type"] === "record" ? { "*": keysOfValibot(schema["value"]) } : null;
}
