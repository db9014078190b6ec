import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import { parseDuration } from "../../migration/duration.ts";
import { pointerTo, wordsOf } from "../issue.ts";
import { parseStrictJson, record } from "../json.ts";

/** What a policy can allow, each a right of its own. */
export const actions = [
  "status",
  "plan",
  "verify",
  "apply",
  "rollback",
  "cancel",
  "retry",
  "unlock",
  "repair",
  "adopt",
  "baseline",
] as const;

/** One right on a target. */
export type Action = (typeof actions)[number];

/** Signature algorithms an issuer may use: asymmetric ones only, so that no public key can serve as a secret. */
const algorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA",
  "Ed25519",
] as const;

/** Who may do what, as the policy file says; everything else is refused. */
export interface Policy {
  /** the only audience a token may name */
  readonly audience: string;
  readonly issuers: readonly Issuer[];
  readonly rules: readonly Rule[];
  /** what a person should look at, although it loads */
  readonly warnings: readonly string[];
}

/** One source of tokens that is believed, and only with its own keys. */
export interface Issuer {
  /** as rules call it */
  readonly name: string;
  /** `iss`, compared exactly */
  readonly issuer: string;
  readonly keys:
    | { readonly kind: "uri"; readonly uri: string }
    | { readonly kind: "file"; readonly path: string };
  readonly algorithms: readonly string[];
  readonly maxTokenAgeMs: number;
}

/** A caller whose token has all of `match` may do `actions` on `targets`. */
export interface Rule {
  readonly id: string;
  /** name of an issuer of the same policy */
  readonly issuer: string;
  /** claim name, or JSON Pointer where it starts with `/`, and the values that match */
  readonly match: readonly { readonly claim: string; readonly anyOf: readonly ClaimValue[] }[];
  /** target names; `*` is all of them */
  readonly targets: readonly string[];
  readonly actions: readonly Action[];
  /** a request that changes something has to name the release's digest */
  readonly isDigestRequired: boolean;
  /** requests one caller may make of one target in an hour, counted by each process for itself; null: no limit */
  readonly perHour: number | null;
}

/** What a claim can be compared with; arrays and objects never match. */
export type ClaimValue = string | number | boolean;

const maxPolicyBytes = 1024 * 1024;
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
  [text, v.number(), v.boolean()],
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

const schema = v.strictObject({
  schema: v.literal("urn:lockkeeper:policy:v1", 'has to be "urn:lockkeeper:policy:v1"'),
  audience: text,
  issuers: record(
    name,
    v.strictObject({
      issuer: text,
      jwksUri: v.optional(
        v.pipe(
          v.string(),
          v.check(isFetchable, "an https address with a host name, no user and no fragment"),
        ),
      ),
      jwksFile: v.optional(text),
      algs: list(v.picklist(algorithms, `one of ${algorithms.join(", ")}`)),
      maxTokenAge: v.optional(duration, "10m"),
    }),
  ),
  rules: v.pipe(
    v.array(
      v.strictObject({
        id: name,
        issuer: v.string(),
        match: record(
          text,
          v.union([claimValue, list(claimValue)], "a text, a number or a boolean, or a list of them"),
        ),
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
      }),
    ),
    v.maxLength(10_000, "at most 10000 rules"),
  ),
});

/**
 * Reads a policy file.
 *
 * @param source - the file's text
 * @param targets - the configured targets; a rule may name only those
 * @throws RunnerError `CONFIG` — naming every problem with its place in the file
 */
export function parsePolicy(source: string, targets: ReadonlySet<string>): Policy {
  if (Buffer.byteLength(source) > maxPolicyBytes) refuse([`larger than ${maxPolicyBytes} bytes`]);
  const parsed = v.safeParse(schema, readJson(source));
  if (!parsed.success) {
    return refuse(wordsOf(parsed.issues));
  }
  const problems: string[] = [];
  const issuers = Object.entries(parsed.output.issuers).map(([issuerName, entry]): Issuer => {
    const at = pointerTo(["issuers", issuerName]);
    if ((entry.jwksUri === undefined) === (entry.jwksFile === undefined))
      problems.push(`${at}: needs either jwksUri or jwksFile`);
    return {
      name: issuerName,
      issuer: entry.issuer,
      keys:
        entry.jwksFile === undefined
          ? { kind: "uri", uri: entry.jwksUri ?? "" }
          : { kind: "file", path: entry.jwksFile },
      algorithms: entry.algs,
      maxTokenAgeMs: entry.maxTokenAge,
    };
  });
  for (const twice of repeated(issuers.map((issuer) => issuer.issuer)))
    problems.push(`/issuers: "${twice}" is there twice`);
  for (const twice of repeated(parsed.output.rules.map((rule) => rule.id)))
    problems.push(`/rules: the id "${twice}" is there twice`);

  const rules = parsed.output.rules.map((rule, index): Rule => {
    const at = (...path: (string | number)[]): string => pointerTo(["rules", index, ...path]);
    if (!issuers.some((issuer) => issuer.name === rule.issuer))
      problems.push(`${at("issuer")}: no issuer is called "${rule.issuer}"`);
    for (const [order, target] of rule.allow.targets.entries()) {
      if (target !== "*" && !targets.has(target))
        problems.push(`${at("allow", "targets", order)}: no target is called "${target}"`);
    }
    const claims = Object.entries(rule.match);
    if (claims.length === 0)
      problems.push(
        `${at("match")}: needs at least one claim; an empty one would match every token of the issuer`,
      );
    for (const [claim] of claims) {
      if (claim.startsWith("/") && /~(?![01])/.test(claim))
        problems.push(`${at("match", claim)}: "~" in a JSON Pointer is written ~0, "/" ~1`);
    }
    return {
      id: rule.id,
      issuer: rule.issuer,
      match: claims.map(([claim, value]) => ({ claim, anyOf: Array.isArray(value) ? value : [value] })),
      targets: rule.allow.targets,
      actions: rule.allow.actions,
      isDigestRequired: rule.require?.digest ?? false,
      perHour: rule.limit?.perHour ?? null,
    };
  });
  if (problems.length > 0) refuse(problems);
  return {
    audience: parsed.output.audience,
    issuers,
    rules,
    warnings: rules.flatMap((rule) => warningsOf(rule, issuers)),
  };
}

/** Mistakes that others have made with these issuers. */
function warningsOf(rule: Rule, issuers: readonly Issuer[]): string[] {
  const url = issuers.find((issuer) => issuer.name === rule.issuer)?.issuer ?? "";
  if (!/github|gitlab/i.test(url)) return [];
  const warnings: string[] = [];
  if (rule.match.length < 2)
    warnings.push(`rule "${rule.id}" compares one claim only; a token has several that should be pinned`);
  if (url.includes("github") && rule.match.some(({ claim }) => claim === "sub")) {
    warnings.push(
      `rule "${rule.id}" compares "sub", whose format differs between repositories; use "repository_id" and others`,
    );
  }
  return warnings;
}

/** Keys are only fetched over TLS from a named host, whatever the network between. */
function isFetchable(value: string): boolean {
  const url = URL.parse(value);
  if (
    url === null ||
    url.protocol !== "https:" ||
    url.username !== "" ||
    url.password !== "" ||
    url.hash !== ""
  )
    return false;
  return !url.hostname.startsWith("[") && !/^[0-9.]+$/.test(url.hostname);
}

function readJson(source: string): unknown {
  try {
    return parseStrictJson(source, 16);
  } catch (error) {
    return refuse([error instanceof SyntaxError ? error.message : "not JSON"]);
  }
}

function repeated(values: readonly string[]): readonly string[] {
  return [...new Set(values.filter((value, index) => values.indexOf(value) !== index))];
}

function refuse(problems: readonly string[]): never {
  throw new RunnerError("CONFIG", `the policy cannot be used: ${problems.join("; ")}`, {
    hint: "correct the policy file; nothing is allowed until it loads",
    fields: { problems: problems.length },
  });
}
