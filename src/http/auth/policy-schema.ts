import * as v from "valibot";
import { parseDuration } from "../../migration/duration.ts";
import { record } from "../json.ts";
import { parseTopicArn } from "./hook.ts";
import { algorithms, frontends, isFetchable, platforms } from "./issuer.ts";
import { actions } from "./rule.ts";

const maxAgeMs = 24 * 3600_000;
const name = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/, "letters, digits, dot, dash and underscore, at most 100"),
);
const text = v.pipe(
  v.string(),
  v.minLength(1, "may not be empty"),
  v.maxLength(2000, "at most 2000 characters"),
);
const claimValue = v.union(
  // two larger numbers can be one and the same once they are read
  [
    text,
    v.pipe(v.number(), v.safeInteger("a whole number below 2^53; larger ones cannot be told apart")),
    v.boolean(),
  ],
  "a text, a number or a boolean, or a list of them",
);
const duration = v.pipe(
  v.string(),
  v.check((value) => parseDuration(value) !== undefined, 'a number with s, m or h, like "10m"'),
  v.transform((value) => parseDuration(value) ?? 0),
  v.minValue(1000, "at least 1s"),
  v.maxValue(maxAgeMs, "at most 24h"),
);
const list = <Item extends v.GenericSchema>(item: Item) =>
  v.pipe(v.array(item), v.minLength(1, "may not be empty"), v.maxLength(1000, "at most 1000 entries"));

const tokenIssuer = v.strictObject({
  kind: v.optional(v.literal("oidc", 'one of "oidc" and "iam"'), "oidc"),
  issuer: text,
  platform: v.optional(v.picklist(platforms, `one of ${platforms.join(", ")}`)),
  jwksUri: v.optional(
    v.pipe(v.string(), v.check(isFetchable, "an https address with a host name, no user and no fragment")),
  ),
  jwksFile: v.optional(text),
  algs: list(v.picklist(algorithms, `one of ${algorithms.join(", ")}`)),
  maxTokenAge: v.optional(duration, "10m"),
  typ: v.optional(
    v.pipe(
      v.string(),
      v.regex(/^[A-Za-z0-9!#$&^_.+-]{1,100}(\/[A-Za-z0-9!#$&^_.+-]{1,100})?$/, 'a media type, like "at+jwt"'),
    ),
  ),
});
const iamFront = v.strictObject({
  kind: v.literal("iam"),
  frontend: v.picklist(frontends, `one of ${frontends.join(", ")}`),
});

const secretFile = v.union(
  [text, v.pipe(v.array(text), v.minLength(1), v.maxLength(2))],
  "a file's name, or a list of two while a secret is being replaced",
);
const headerName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9-]{1,100}$/, "letters, digits and dashes"),
  v.check(
    (value) => !/^(authorization|cookie|host|content-.*|transfer-encoding)$/i.test(value),
    "a header of the sender's own, such as X-Signature",
  ),
);
const hook = v.variant(
  "kind",
  [
    v.strictObject({
      kind: v.literal("hmac"),
      header: headerName,
      prefix: v.optional(v.pipe(v.string(), v.regex(/^[\x21-\x7e]{0,50}$/, "visible ASCII, at most 50")), ""),
      encoding: v.optional(v.picklist(["hex", "base64"], "hex or base64"), "hex"),
      secretFile,
    }),
    v.strictObject({ kind: v.literal("github"), secretFile }),
    v.strictObject({ kind: v.literal("standard-webhooks"), secretFile }),
    v.strictObject({
      kind: v.literal("sns"),
      topicArn: v.pipe(
        v.string(),
        v.check(
          (value) => parseTopicArn(value) !== undefined,
          "the whole ARN of one topic, arn:aws:sns:<region>:<account>:<name>",
        ),
      ),
    }),
  ],
  "one of hmac, github, standard-webhooks, sns",
);

const rule = v.strictObject({
  id: name,
  issuer: v.optional(v.string()),
  match: v.optional(
    record(text, v.union([claimValue, list(claimValue)], "a text, a number or a boolean, or a list of them")),
  ),
  hook: v.optional(v.string()),
  allow: v.strictObject({
    targets: list(text),
    actions: list(v.picklist(actions, `one of ${actions.join(", ")}`)),
  }),
  require: v.optional(v.strictObject({ digest: v.optional(v.boolean(), false) })),
  limit: v.optional(
    v.strictObject({
      perHour: v.pipe(v.number(), v.integer("a whole number"), v.minValue(1, "at least 1")),
    }),
  ),
});

/** The policy file's shape; closed at every level. */
export const policySchema = v.strictObject({
  schema: v.literal("urn:lockkeeper:policy:v1", 'has to be "urn:lockkeeper:policy:v1"'),
  audience: text,
  issuers: record(
    name,
    v.lazy((given): typeof tokenIssuer | typeof iamFront => (isIam(given) ? iamFront : tokenIssuer)),
  ),
  hooks: v.optional(record(name, hook), {}),
  rules: v.pipe(v.array(rule), v.maxLength(10_000, "at most 10000 rules")),
});

/** A policy as it was written, checked for its shape only. */
export type PolicyText = v.InferOutput<typeof policySchema>;

function isIam(given: unknown): boolean {
  return typeof given === "object" && given !== null && "kind" in given && given.kind === "iam";
}
