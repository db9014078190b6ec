import type { Hono } from "hono";
import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import { answerBegun } from "../answer.ts";
import { hookPaths, noteReason } from "../auth/authentication.ts";
import { rulesForHook } from "../auth/decision.ts";
import type { Authentic } from "../auth/hook-verifier.ts";
import { parseBody, readQuery } from "../body.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { inspect } from "../inspect.ts";
import { allowRun, beginRun, isChange } from "../order-run.ts";
import { parsePrefer } from "../prefer.ts";
import { readCapped } from "../read-capped.ts";
import { runRequestSchema, type RunBody } from "../run-request.ts";

/** milliseconds that a delivery is known again: longer than any sender repeats one */
const rememberMs = 7 * 24 * 3600_000;

/**
 * Webhooks. `POST /v1/hooks/{hook}/{target}` asks to apply what is newest: the body proves who sends, and is not read.
 * `POST /v1/hooks/{hook}` is for senders who can write a run request of their own.
 *
 * A sender has nobody's identity and starts by itself, so its runs are those of an event: they undo no rollback.
 */
export function addHookRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  app.post(`${hookPaths}:hook/:target`, async (c) => {
    const delivery = await authenticDelivery(c, parts);
    if (delivery === undefined) return c.body(null, 204);
    const target = c.req.param("target");
    refuseRunRequest(c, parts, delivery);
    return answer(c, parts, delivery, { ...newest, target });
  });
  app.post(`${hookPaths}:hook`, async (c) => {
    const delivery = await authenticDelivery(c, parts);
    if (delivery === undefined) return c.body(null, 204);
    const { bodyBytes } = parts.limits;
    if (delivery.content.length > bodyBytes)
      throw new RunnerError("BODY_TOO_LARGE", `the body is larger than ${bodyBytes} bytes`);
    return answer(c, parts, delivery, parseBody(delivery.content, parts, runRequestSchema));
  });
}

/** What a delivery without words of ours asks for. */
const newest: Omit<RunBody, "target"> = {
  action: "apply",
  release: null,
  to: null,
  plan: null,
  deadline: null,
  labels: {},
  onFailure: null,
  allow: null,
};

type Delivery = Extract<Authentic, { readonly kind: "delivery" }>;

/** A delivery that asks for something; undefined for one that only had to be taken. Until it is authentic every failure is the same. */
async function authenticDelivery(c: HttpContext, parts: HttpParts): Promise<Delivery | undefined> {
  const name = c.req.param("hook") ?? "";
  try {
    const authentic = await parts.strangers.spend((take) =>
      parts.hooks.verify(
        name,
        (header) => c.req.header(header),
        () => readCapped(c.req.raw.body, parts.limits.hookBodyBytes, take),
      ),
    );
    c.get("note")["hook"] = name;
    switch (authentic.kind) {
      case "delivery":
        return authentic;
      case "ping":
        return undefined;
      case "subscription":
      case "unsubscription":
        sayHowToConfirm(parts, name, authentic);
        return undefined;
    }
  } catch (error) {
    noteReason(c, error);
    throw error;
  }
}

/**
 * The signature is over the body alone: whoever has seen a request, for a look or for one release, could else send it here
 * and have it mean that the newest is to be applied, on any target of the hook's.
 */
function refuseRunRequest(c: HttpContext, parts: HttpParts, { content }: Delivery): void {
  try {
    parseBody(content, parts, runRequestSchema);
  } catch {
    return;
  }
  throw new RunnerError("INVALID_REQUEST", "the body is a run request, and this address takes events", {
    hint: `send it to ${hookPaths}${c.req.param("hook") ?? ""}`,
  });
}

async function answer(
  c: HttpContext,
  parts: HttpParts,
  { id, digest }: Delivery,
  body: RunBody,
): Promise<Response> {
  readQuery(c, v.strictObject({}));
  const name = c.req.param("hook") ?? "";
  const issuer = `urn:lockkeeper:hook:${name}`;
  c.set("principal", {
    issuer,
    subject: name,
    claims: {},
    // one topic may wake several targets, and some of them may share a database
    jti: `${id} for ${body.target}`,
    expiresAt: new Date(parts.now().getTime() + rememberMs),
  });
  c.set("rules", rulesForHook(parts.policy, name));
  Object.assign(c.get("note"), { issuer, subject: name });
  const access = allowRun(c, parts, body);
  if (!isChange(body)) return inspect(c, parts, access.target, body);
  // senders give up after a few seconds and repeat: they are only kept waiting when they ask for it
  const prefer = c.req.header("prefer");
  const { waitMs, applied } = parsePrefer(prefer, parts.limits);
  const by = { trigger: "event", bodyDigest: digest, idempotencyKey: null } as const;
  const run = await beginRun(c, parts, { body, access, by }, prefer === undefined ? 0 : waitMs);
  if (applied !== undefined) c.header("preference-applied", applied);
  return answerBegun(c, run, parts);
}

/** Nothing that a message names is ever fetched, so a person confirms. The token is good for this alone. */
function sayHowToConfirm(
  { log }: HttpParts,
  hook: string,
  { kind, topicArn, token }: Extract<Authentic, { readonly kind: "subscription" | "unsubscription" }>,
): void {
  const confirm = `aws sns confirm-subscription --topic-arn ${topicArn} --token ${token}`;
  if (kind === "subscription")
    log({ level: "warn", event: "hook.subscription", fields: { hook, topicArn, confirm } });
  else log({ level: "warn", event: "hook.unsubscribed", fields: { hook, topicArn, restore: confirm } });
}
