import { setTimeout as sleep } from "node:timers/promises";
import type { AuditFacts, AuditPrincipal, AuditRecord } from "../audit/record.ts";
import { type AuditWriting, pendingRecord, writeAudit } from "../audit/write.ts";
import { type RunnerErrorCode, toRunnerError } from "../error.ts";
import type { Target } from "../runner.ts";
import type { PendingDecision } from "../dispatch/begun.ts";
import { compare, type Decision } from "./auth/decision.ts";
import type { Principal } from "./auth/principal.ts";
import { RateLimit } from "./auth/rate-limit.ts";
import type { Action, Rule } from "./auth/rule.ts";
import type { HttpLimits } from "./limits.ts";
import { auditLine, type LogRecord } from "../report/log.ts";

/** What the policy was asked on a request's way, and what it said. */
export interface Asked {
  readonly action: Action;
  readonly target: string;
  readonly decision: Decision;
}

/** Whose request it is. */
export interface Asker {
  readonly principal: Principal;
  /** the policy's rules that know the caller */
  readonly rules: readonly Rule[];
  /** as the server's log calls it */
  readonly request: string;
  readonly trigger: "http" | "event";
  readonly sourceIp: string | null;
  /** of a request for a run */
  readonly requested: AuditRecord["requested"] | undefined;
}

/** What of a request that was allowed its record tells besides. */
export type AllowedFacts = Pick<AuditFacts, "run" | "reason" | "trigger">;

/** milliseconds to add a record */
const writeMs = 10_000;

/** Refusals and repetitions of one caller on one target that are recorded in an hour; all callers that no rule knows count as one. */
const perCaller = 60;

/** Records of refusals that wait for one target's database. */
const maxWaiting = 200;

/** Callers whose refusals are counted at once. */
const maxCounted = 10_000;

/** What the policy refused although it let the caller through to the target. */
const refusals: ReadonlySet<RunnerErrorCode> = new Set([
  "DIGEST_REQUIRED",
  "RATE_LIMITED",
  "REPLAY",
  "IDEMPOTENCY_MISMATCH",
  "PAUSED",
]);

interface AuditDeps {
  readonly targets: ReadonlyMap<string, Target>;
  readonly limits: Pick<HttpLimits, "refusalRecords">;
  log(record: LogRecord): void;
  now(): Date;
}

/** Decisions about callers as records of the audit log of the database that was asked for; which of them, `audit/record.ts` says. */
export class DecisionAudit {
  readonly #deps: AuditDeps;
  readonly #limit = new RateLimit();
  readonly #ofTarget = new RateLimit();
  /** refusals and repetitions without a record, by whom they were counted */
  readonly #leftOut = new Map<string, number>();
  /** records of refusals that wait for each other, by target: many at once would only be in each other's way */
  readonly #queues = new Map<string, { length: number; last: Promise<void> }>();

  constructor(deps: AuditDeps) {
    this.#deps = deps;
  }

  /**
   * Records that the policy allows what a request is about to change.
   *
   * @param isNew - false: another request has begun it, and this one changes nothing. Recorded as far as refusals are,
   *   because whoever has seen one webhook can repeat it as often as he likes
   * @throws RunnerError `AUDIT_UNAVAILABLE` - then it must not
   */
  async allowed(
    asker: Asker,
    action: Action,
    { target, rule }: { readonly target: Target; readonly rule: Rule },
    facts: AllowedFacts,
    isNew = true,
  ): Promise<void> {
    const who = nameOf(asker, target.name);
    if (!isNew && !this.#mayRecord(who, target.name)) return this.#leaveOut(who);
    const leftOut = this.#takeLeftOut(who);
    const known = factsOf(asker, action, target, [rule]);
    await this.#write(target, { ...known, ...facts, outcome: "allowed", leftOut });
  }

  /** As {@link allowed} for what is new, for whoever adds the record together with what it allows. */
  pending(
    asker: Asker,
    action: Action,
    { target, rule }: { readonly target: Target; readonly rule: Rule },
    facts: AllowedFacts,
  ): PendingDecision {
    const who = nameOf(asker, target.name);
    const leftOut = this.#takeLeftOut(who);
    const known = factsOf(asker, action, target, [rule]);
    const record = pendingRecord({ ...known, ...facts, outcome: "allowed", leftOut }, this.#writing(target));
    return { ...record, dropped: () => this.#leaveOut(who, leftOut) };
  }

  /**
   * Records that the policy refuses what was asked, if it did, as far as that is to be recorded. Nobody waits for it:
   * how long an answer takes must not tell whether there is such a target.
   */
  refused(asker: Asker, { action, target: name, decision }: Asked, code: RunnerErrorCode): void {
    if (decision.kind === "allowed" && !refusals.has(code)) return;
    const target = this.#deps.targets.get(name);
    if (target === undefined) return;
    // Anybody may have a token of a public issuer, under as many names as they like.
    const who = decision.kind === "stranger" ? JSON.stringify([name]) : nameOf(asker, name);
    const queue = this.#queues.get(name) ?? { length: 0, last: Promise.resolve() };
    this.#queues.set(name, queue);
    if (queue.length >= maxWaiting || !this.#mayRecord(who, name)) return this.#leaveOut(who);
    const leftOut = this.#takeLeftOut(who);
    const facts = factsOf(asker, action, target, decision.kind === "allowed" ? [decision.rule] : asker.rules);
    queue.length += 1;
    queue.last = queue.last
      .then(() => this.#write(target, { ...facts, outcome: "refused", code, leftOut }))
      .catch((thrown: unknown) => {
        const error = toRunnerError(thrown);
        const fields = { target: name, code: error.code, message: error.message };
        this.#deps.log({ level: "error", event: "audit.unwritten", fields });
      })
      .finally(() => (queue.length -= 1));
  }

  /** Resolves when every record of a refusal is written, or cannot be, and after {@link writeMs} in any case. */
  async drained(): Promise<void> {
    const patience = new AbortController();
    const late = sleep(writeMs, undefined, { signal: patience.signal }).catch(() => undefined);
    await Promise.race([Promise.all([...this.#queues.values()].map(({ last }) => last)), late]);
    patience.abort();
  }

  #mayRecord(who: string, target: string): boolean {
    const { now, limits } = this.#deps;
    if (this.#limit.take(who, perCaller, now()) > 0) return false;
    return this.#ofTarget.take(target, limits.refusalRecords, now()) === 0;
  }

  #takeLeftOut(who: string): number {
    const count = this.#leftOut.get(who) ?? 0;
    this.#leftOut.delete(who);
    return count;
  }

  #leaveOut(who: string, count = 1): void {
    if (count === 0) return;
    const [oldest] = this.#leftOut.keys();
    if (this.#leftOut.size >= maxCounted && oldest !== undefined && !this.#leftOut.has(who))
      this.#leftOut.delete(oldest);
    this.#leftOut.set(who, (this.#leftOut.get(who) ?? 0) + count);
  }

  async #write(target: Target, facts: AuditFacts): Promise<void> {
    const signal = AbortSignal.timeout(writeMs);
    await writeAudit(target.driver.audit, facts, { signal, ...this.#writing(target) });
  }

  #writing({ name }: Target): Omit<AuditWriting, "signal"> {
    const { log, now } = this.#deps;
    return { now, onEntry: (entry) => log(auditLine(entry, name)) };
  }
}

function nameOf({ principal: { issuer, subject } }: Asker, target: string): string {
  return JSON.stringify([target, issuer, subject]);
}

/** @param rules - that allowed it; of a refusal those that know the caller */
function factsOf(
  { principal, request, trigger, sourceIp, requested }: Asker,
  action: Action,
  target: Target,
  rules: readonly Rule[],
): AuditFacts {
  const { issuer, subject, claims, jti } = principal;
  const rule = rules.length === 1 ? (rules[0]?.id ?? null) : null;
  return {
    event: "decision",
    action,
    target: target.name,
    stream: target.stream,
    environment: target.environment,
    request,
    trigger,
    principal: { issuer, subject, rule, claims: comparedClaims(rules, claims) },
    jti,
    sourceIp,
    ...(requested === undefined ? {} : { requested }),
  };
}

/** Claims that rules compare: what is kept of a token, for all of it may be more than the operator wants to keep. */
function comparedClaims(
  rules: readonly Rule[],
  claims: Readonly<Record<string, unknown>>,
): AuditPrincipal["claims"] {
  const matches = rules.flatMap(({ from }) => (from.kind === "issuer" ? from.match : []));
  return Object.fromEntries(
    matches.flatMap((match): [string, string | number | boolean][] => {
      const { found } = compare(match, claims);
      const isPlain = typeof found === "string" || typeof found === "number" || typeof found === "boolean";
      return isPlain ? [[match.claim, found]] : [];
    }),
  );
}
