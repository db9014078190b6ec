import * as v from "valibot";
import type { IamFront } from "./issuer.ts";
import { plain, type TokenPrincipal } from "./principal.ts";

/** milliseconds that a request's id is remembered; AWS refuses a signature that is older than 5 minutes by itself */
const rememberMs = 15 * 60_000;

const account = v.pipe(v.string(), v.regex(/^[0-9]{12}$/));
/** Of what a gateway says about a caller only what AWS itself chose; everything that a caller sends is elsewhere in the event. */
const identity = { accountId: account, userArn: v.pipe(v.string(), v.maxLength(2048)) };
const id = v.pipe(v.string(), v.regex(/^[A-Z0-9]{16,128}(:[\w+=,.@-]{2,64})?$/));
const requestId = v.pipe(plain, v.maxLength(200));

/** Function URLs and HTTP APIs, payload format 2.0. */
const lambdaEvent = v.object({
  version: v.literal("2.0"),
  requestContext: v.object({
    requestId,
    authorizer: v.object({
      iam: v.object({ ...identity, callerId: id, principalOrgId: v.nullish(v.string()) }),
    }),
  }),
});

/** REST APIs, with the Lambda proxy integration. */
const restEvent = v.object({
  version: v.optional(v.literal("1.0")),
  requestContext: v.object({
    requestId,
    // the console's test button calls past the API's own authorization
    stage: v.pipe(v.string(), v.notValue("test-invoke-stage")),
    identity: v.object({ ...identity, caller: id, principalOrgId: v.nullish(v.string()) }),
  }),
});

/**
 * The caller that one of AWS's gateways has authenticated, from the event it handed over, never from a header; undefined
 * where no such gateway is configured, or it let the request pass without a signature.
 *
 * Claims: `account`, `partition`, `id` (AWS's own, never given out twice), `org`, and either `role` (its name, unique in
 * an account whatever its path, which the ARN of a session does not hold) with `session`, or `user` (its path and name).
 *
 * @param event - as Lambda was called with it
 */
export function iamPrincipal(
  fronts: readonly IamFront[],
  event: unknown,
  now: Date,
): TokenPrincipal | undefined {
  for (const { name, frontend } of fronts) {
    const found = readers[frontend](event);
    const who = found === undefined ? undefined : whoIs(found.userArn);
    // an ARN of another account than the one that signed is nothing that AWS would say
    if (found === undefined || who === undefined || who.account !== found.accountId) continue;
    const [ownId = ""] = found.id.split(":");
    const { subject, ...claims } = who;
    return {
      issuer: `urn:lockkeeper:iam:${frontend}`,
      issuerName: name,
      subject,
      claims: { ...claims, id: ownId, ...(found.org === null ? {} : { org: found.org }) },
      jti: found.requestId,
      expiresAt: new Date(now.getTime() + rememberMs),
    };
  }
  return undefined;
}

/** What the gateways' events have in common. */
interface Signed {
  readonly userArn: string;
  readonly accountId: string;
  readonly id: string;
  readonly org: string | null;
  readonly requestId: string;
}

const readers: Readonly<Record<IamFront["frontend"], (event: unknown) => Signed | undefined>> = {
  "lambda-iam": (event) => {
    const read = v.safeParse(lambdaEvent, event);
    if (!read.success) return undefined;
    const { requestContext: context } = read.output;
    const { iam } = context.authorizer;
    return { ...iam, id: iam.callerId, org: iam.principalOrgId ?? null, requestId: context.requestId };
  },
  "rest-api-iam": (event) => {
    const read = v.safeParse(restEvent, event);
    if (!read.success) return undefined;
    const { requestContext: context } = read.output;
    const { identity: caller } = context;
    return { ...caller, id: caller.caller, org: caller.principalOrgId ?? null, requestId: context.requestId };
  },
};

const roleArn =
  /^arn:(aws|aws-cn|aws-us-gov):sts::([0-9]{12}):assumed-role\/([\w+=,.@-]{1,64})\/([\w+=,.@-]{2,64})$/;
const userArn =
  /^arn:(aws|aws-cn|aws-us-gov):iam::([0-9]{12}):user\/((?:[\x21-\x2e\x30-\x7e]{1,510}\/){0,20}[\w+=,.@-]{1,64})$/;

/** Roles and users; neither the root user nor federated users, whose names somebody else chose. */
function whoIs(arn: string): { readonly subject: string; readonly account: string } | undefined {
  const [, rolePartition, roleAccount, role, session] = roleArn.exec(arn) ?? [];
  if (rolePartition !== undefined && roleAccount !== undefined && role !== undefined) {
    const claims = { partition: rolePartition, account: roleAccount, role, session };
    return { subject: `arn:${rolePartition}:sts::${roleAccount}:assumed-role/${role}`, ...claims };
  }
  const [, partition, userAccount, user] = userArn.exec(arn) ?? [];
  if (partition === undefined || userAccount === undefined || user === undefined) return undefined;
  const claims = { partition, account: userAccount, user };
  return { subject: arn, ...claims };
}
