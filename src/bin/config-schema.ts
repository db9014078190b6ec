import * as v from "valibot";
import { cloudRunJobName } from "../host/cloud-run-hand-over.ts";
import { parseSecretReference } from "../host/secret.ts";
import { parseDuration } from "../migration/duration.ts";
import { notifySchema } from "./notify-schema.ts";
import { trustSchema } from "../release/trust/trust-text.ts";
import { parseEndpoint } from "./endpoint.ts";
import { defaultEnvironment, iamPlatforms } from "./settings.ts";

/** Names of targets, trusts, streams and environments: they stand in URLs, run ids and bucket paths. */
const name = v.pipe(
  v.string("expected a name"),
  v.regex(
    /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
    "expected a name: up to 63 letters, digits, . _ -, the first a letter or digit",
  ),
);

const text = v.pipe(v.string("expected text"), v.minLength(1, "expected text, not nothing"));

const duration = v.pipe(
  v.union([v.string(), v.literal(0)], "expected a duration such as 10m"),
  v.check((value) => parseDuration(String(value)) !== undefined, "expected a duration such as 10m"),
  v.transform((value) => parseDuration(String(value)) ?? 0),
);

const httpUrl = v.pipe(
  v.string("expected an http or https URL"),
  v.check((value) => {
    const url = URL.parse(value);
    return (
      url !== null &&
      /^https?:$/.test(url.protocol) &&
      url.username === "" &&
      url.search === "" &&
      url.hash === ""
    );
  }, "expected an http or https URL without user, query and fragment"),
);

const listen = v.pipe(
  v.string("expected host:port such as 127.0.0.1:8080"),
  v.check((value) => parseListen(value) !== undefined, "expected host:port such as 127.0.0.1:8080"),
);

const s3 = v.strictObject({
  endpoint: v.optional(httpUrl),
  region: v.optional(text),
  pathStyle: v.optional(v.boolean("expected true or false")),
});

const gcs = v.strictObject({ endpoint: v.optional(httpUrl) });

const secretName =
  "expected arn:aws:secretsmanager:<region>:<account>:secret:<name> or projects/<project>/secrets/<name>";
const secret = v.pipe(
  v.string(secretName),
  v.check((value) => parseSecretReference(value) !== undefined, secretName),
);

const endpointShape = "expected host or host:port such as orders.abc.eu-west-1.rds.amazonaws.com";
const endpoint = v.pipe(
  v.string(endpointShape),
  v.check((value) => parseEndpoint(value) !== undefined, endpointShape),
);

const access = {
  url: v.optional(text),
  urlFile: v.optional(text),
  urlEnv: v.optional(text),
  urlSecret: v.optional(secret),
  passwordFile: v.optional(text),
  passwordSecret: v.optional(secret),
  iam: v.optional(v.picklist(iamPlatforms, `expected ${iamPlatforms.join(" or ")}`)),
  iamHost: v.optional(endpoint),
};

const oneUrl = "expected exactly one of url, urlFile, urlEnv, urlSecret";
const onePassword = "expected at most one of passwordFile, passwordSecret, iam";
const iamHostOfRds = "iamHost goes with iam: rds";

const database = v.pipe(
  v.strictObject({
    ...access,
    schema: v.optional(
      v.pipe(
        v.string("expected a schema's name"),
        v.regex(/^[A-Za-z_][A-Za-z0-9_$]{0,62}$/, "expected a schema's name"),
      ),
    ),
    direct: v.optional(
      v.pipe(
        v.strictObject(access),
        v.check((given) => hasOneUrl(given), oneUrl),
        v.check((given) => hasOnePassword(given), onePassword),
        v.check((given) => given.iamHost === undefined || given.iam === "rds", iamHostOfRds),
      ),
    ),
  }),
  v.check((given) => hasOneUrl(given), oneUrl),
  v.check((given) => hasOnePassword(given), onePassword),
  v.check((given) => given.iamHost === undefined || given.iam === "rds", iamHostOfRds),
);

const jobShape = "expected projects/<project>/locations/<region>/jobs/<name>";
const cloudRunJob = v.pipe(v.string(jobShape), v.regex(cloudRunJobName, jobShape));

const limits = v.strictObject({
  wait: v.optional(duration),
  lockTimeout: v.optional(duration),
  statementTimeout: v.optional(duration),
  deadline: v.optional(duration),
});

const backup = v.pipe(
  v.strictObject({
    command: v.optional(
      v.pipe(v.array(text, "expected a list of words"), v.minLength(1, "expected a program")),
    ),
    webhook: v.optional(v.strictObject({ url: text, headerFile: v.optional(text) })),
    timeout: v.optional(duration),
  }),
  v.check(
    ({ command, webhook }) => (command === undefined) !== (webhook === undefined),
    "expected exactly one of command, webhook",
  ),
);

const engine = v.picklist(["postgres", "mongodb"], "expected postgres or mongodb");

const target = v.strictObject({
  engine,
  environment: v.optional(name, defaultEnvironment),
  stream: name,
  source: text,
  trust: v.optional(name),
  format: v.optional(text),
  placeholders: v.optional(v.record(v.string(), v.string("expected text")), {}),
  database,
  limits: v.optional(limits, {}),
  orphans: v.optional(v.picklist(["wait", "cancel"], "expected wait or cancel")),
  onFailure: v.optional(v.picklist(["keep", "rollback"], "expected keep or rollback")),
  services: v.optional(v.record(name, name), {}),
  dependencies: v.optional(v.picklist(["wait", "refuse"], "expected wait or refuse")),
  allowBreaking: v.optional(v.boolean("expected true or false"), false),
  paused: v.optional(v.boolean("expected true or false"), false),
  backup: v.optional(backup),
  s3: v.optional(s3, {}),
  gcs: v.optional(gcs, {}),
});

/** The shape of the configuration file. `infra/config.schema.json` says the same to editors; a test compares them. */
export const configSchema = v.strictObject({
  version: v.literal(1, "expected 1, the version of this file's shape"),
  publicUrl: v.optional(httpUrl),
  listen: v.optional(listen),
  metrics: v.optional(listen),
  policy: v.optional(text),
  work: v.optional(v.strictObject({ cloudRunJob })),
  trust: v.optional(v.record(name, trustSchema), {}),
  s3: v.optional(s3, {}),
  gcs: v.optional(gcs, {}),
  notify: v.optional(notifySchema, []),
  targets: v.record(name, target),
});

/** A configuration file's content, checked, with durations in milliseconds. */
export type ConfigText = v.InferOutput<typeof configSchema>;

/** Host and port of `127.0.0.1:8080`, `[::1]:8080` or `:8080` (every interface); port 0 takes a free one. */
export function parseListen(value: string): { readonly host: string; readonly port: number } | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([A-Za-z0-9.-]*)):(\d{1,5})$/.exec(value);
  if (match === null) return undefined;
  const port = Number(match[3]);
  const host = match[1] ?? match[2] ?? "";
  return port <= 65_535 ? { host: host === "" ? "0.0.0.0" : host, port } : undefined;
}

type AccessText = { readonly [K in keyof typeof access]?: string | undefined };

function hasOneUrl({ url, urlFile, urlEnv, urlSecret }: AccessText): boolean {
  return [url, urlFile, urlEnv, urlSecret].filter((given) => given !== undefined).length === 1;
}

function hasOnePassword({ passwordFile, passwordSecret, iam }: AccessText): boolean {
  return [passwordFile, passwordSecret, iam].filter((given) => given !== undefined).length <= 1;
}
