import type { Context } from "hono";
import type { AuditRecord } from "../audit/record.ts";
import type { Target } from "../runner.ts";
import type { AppliedReleases } from "./applied-release.ts";
import type { ActiveRuns } from "../dispatch/active-runs.ts";
import type { HandOver } from "../dispatch/hand-over.ts";
import type { Waker } from "../dispatch/waker.ts";
import type { Asked, DecisionAudit } from "./audit.ts";
import type { Principal } from "./auth/principal.ts";
import type { HookVerifier } from "./auth/hook-verifier.ts";
import type { TokenVerifier } from "./auth/token.ts";
import type { Policy } from "./auth/policy.ts";
import type { Rule } from "./auth/rule.ts";
import type { RateLimit } from "./auth/rate-limit.ts";
import type { ByteBudget } from "./byte-budget.ts";
import type { HttpLimits } from "./limits.ts";
import type { Links } from "./link.ts";
import type { LogRecord } from "../report/log.ts";
import type { Turns } from "./turns.ts";
import type { Watchers } from "./watchers.ts";

/** What the server is made of. It builds no client of its own: `bin` gives it opened targets, keys and a log. */
export interface HttpDeps {
  readonly targets: ReadonlyMap<string, Target>;
  readonly policy: Policy;
  readonly verifier: TokenVerifier;
  readonly hooks: HookVerifier;
  /** where callers reach this server, `https://migrate.example` or with a path; the only base of links */
  readonly publicUrl: string;
  readonly limits: HttpLimits;
  readonly version: string;
  /** aborts when the server stops: runs are handed over at their next safe point, waits and streams end at once */
  readonly signal: AbortSignal;
  /** the host stops the process with its answers: runs begin in executions of their own. Absent: they go on here */
  readonly handOver?: HandOver;
  log(record: LogRecord): void;
  now(): Date;
}

/** What the routes share besides: made once by `createApp`. */
export interface HttpParts extends HttpDeps {
  readonly active: ActiveRuns;
  readonly waker: Waker;
  readonly audit: DecisionAudit;
  readonly links: Links;
  readonly rateLimit: RateLimit;
  readonly applied: AppliedReleases;
  /** work for callers who only look */
  readonly turns: { readonly look: Turns; readonly verify: Turns };
  /** for bodies that have to be read before their sender is known */
  readonly strangers: ByteBudget;
  /** long polls and streams open now */
  readonly watchers: Watchers;
}

/** What a request carries along, by hono. */
export interface HttpEnv {
  Bindings: {
    /** the request's own socket; absent where the server has none */
    readonly incoming?: { readonly socket: { readonly remoteAddress?: string | undefined } };
    /** Lambda's event, as it came; absent on a socket: what of it a gateway wrote can be believed, what a caller sent cannot */
    readonly event?: unknown;
  };
  Variables: {
    requestId: string;
    /** who asks; set for all of `/v1` and for events */
    principal: Principal;
    /** the policy's rules that know the caller */
    rules: readonly Rule[];
    /** what the policy was asked last, and what it said */
    asked: Asked | undefined;
    /** what a request for a run wants */
    requested: AuditRecord["requested"] | undefined;
    /** what the request's log line says besides */
    note: Record<string, string | number | boolean | null>;
  };
}

/** A request on its way through the routes. */
export type HttpContext = Context<HttpEnv>;
