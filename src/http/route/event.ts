import type { Hono } from "hono";
import { lineOfNobody, receive } from "../../dispatch/received.ts";
import type { Woken } from "../../dispatch/waker.ts";
import { targetsOf } from "../../dispatch/watched.ts";
import { RunnerError, type RunnerErrorCode } from "../../error.ts";
import { decodeEvent } from "../../event/decode.ts";
import type { BucketEvent, Decoded, EventPath } from "../../event/event.ts";
import { goalText } from "../../run/audit-trail.ts";
import type { Target } from "../../runner.ts";
import { recordAllowed, recordRefused } from "../audited.ts";
import { rateLimited } from "../auth/access.ts";
import { identify } from "../auth/authentication.ts";
import { decide } from "../auth/decision.ts";
import type { Rule } from "../auth/rule.ts";
import type { HttpContext, HttpEnv, HttpParts } from "../context.ts";
import { traceOf } from "../order-run.ts";
import { readCapped } from "../read-capped.ts";

/** The root as well: Eventarc has no other path to send to unless it is told one. */
const paths = ["/", "/events"];

/**
 * `POST /` and `POST /events`: a storage service, or what passes its notifications on, says that an object was written. What
 * it says is only compared with what targets watch. A token of these senders comes with many deliveries and is not used up:
 * whoever repeats one has a bucket looked at, and no more.
 *
 * Anything but 2xx has the sender repeat it for days. So what nobody knows, nobody watches or nobody mends by waiting is
 * acknowledged; unreachable infrastructure is not, and nor is a sender without any right to wake: that is a mistake in the
 * policy, which its sender's own monitor shows, and once it is mended nothing is lost. Who has that right for some targets
 * learns nothing of the others.
 */
export function addWakeRoutes(app: Hono<HttpEnv>, parts: HttpParts): void {
  for (const path of paths) app.post(path, (c) => answer(c, parts));
}

async function answer(c: HttpContext, parts: HttpParts): Promise<Response> {
  await identify(c, parts);
  assertMayWake(c);
  const { events, via } = receive(await read(c, parts), () => c.get("principal"), parts.log);
  const woken = via === undefined ? [] : await wake(c, parts, events, via);
  const unreachable = woken.find(({ kind }) => kind === "unreachable");
  if (unreachable?.kind === "unreachable") throw later(unreachable.target, unreachable.code);
  return c.body(null, 204);
}

/** What is larger, or no JSON, was not sent by any of them. */
async function read(c: HttpContext, { limits }: HttpParts): Promise<Decoded> {
  const bytes = await readCapped(c.req.raw.body, limits.hookBodyBytes);
  if (bytes === undefined) return { kind: "unknown", reason: `more than ${limits.hookBodyBytes} bytes` };
  try {
    const body: unknown = bytes.length === 0 ? undefined : JSON.parse(bytes.toString());
    return decodeEvent(body, (name) => c.req.header(name));
  } catch {
    return { kind: "unknown", reason: "not JSON" };
  }
}

async function wake(
  c: HttpContext,
  parts: HttpParts,
  events: readonly BucketEvent[],
  via: EventPath,
): Promise<readonly Woken[]> {
  const allowed: { readonly target: Target; readonly rule: Rule }[] = [];
  for (const target of targetsOf(events, parts.targets.values())) {
    const { name, environment } = target;
    const question = { action: "wake", target: name, environment, hasDigest: true } as const;
    const decision = decide(c.get("rules"), question);
    if (decision.kind === "allowed") allowed.push({ target, rule: decision.rule });
    else recordRefused(c, parts, { action: "wake", target: name, decision }, "NOT_ALLOWED");
  }
  const { issuer, subject } = c.get("principal");
  if (allowed.length === 0)
    for (const event of events) parts.log(lineOfNobody(event, { via, issuer, subject }));
  c.set("requested", {
    goal: goalText({ kind: "latest" }),
    digest: null,
    plan: null,
    onFailure: null,
    allow: [],
  });
  // All of them first: where an answer ends the process, nothing may be half begun.
  const woken = await Promise.allSettled(allowed.map((access) => wakeOne(c, parts, access, via)));
  return woken.map((one) => {
    if (one.status === "rejected") throw one.reason;
    return one.value;
  });
}

async function wakeOne(
  c: HttpContext,
  parts: HttpParts,
  access: { readonly target: Target; readonly rule: Rule },
  via: EventPath,
): Promise<Woken> {
  const { target, rule } = access;
  const { issuer, subject } = c.get("principal");
  if (rule.perHour !== null) {
    const caller = JSON.stringify([rule.id, issuer, subject, target.name]);
    const seconds = parts.rateLimit.take(caller, rule.perHour, parts.now());
    if (seconds > 0) throw rateLimited(`rule "${rule.id}" allows ${rule.perHour} requests an hour`, seconds);
  }
  const by = {
    trigger: "event",
    via,
    issuer,
    subject,
    rule: rule.id,
    ...traceOf(c),
    // Repetitions are how these senders work: the first is recorded.
    recordAllowed: async (_: Target, runId: string, isNew: boolean): Promise<void> => {
      if (isNew) await recordAllowed(c, parts, "wake", access, { run: runId, trigger: "event" });
    },
  } as const;
  return parts.waker.wakeTarget(target, by, c.req.raw.signal);
}

function assertMayWake(c: HttpContext): void {
  if (c.get("rules").some(({ actions }) => actions.includes("wake"))) return;
  throw new RunnerError("NOT_ALLOWED", "no rule of the policy lets this caller wake anything", {
    hint: 'add a rule for the token\'s claims with "actions": ["wake"]; lockkeeper policy check explains',
    fields: { action: "wake" },
  });
}

/** Worth another delivery; what is wrong, and where, is for the log alone. */
function later(target: string, code: RunnerErrorCode): RunnerError {
  return new RunnerError(code, `"${target}" cannot be looked at now`, {
    hint: "send it again; the server's log says what is wrong",
    fields: { retryAfterSeconds: 10 },
  });
}
