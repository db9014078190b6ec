import {
  type Attributes,
  type Context,
  context,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  trace,
  TraceFlags,
  type Tracer,
} from "@opentelemetry/api";
import type { RunnerError, RunnerErrorCode } from "../error.ts";
import type { RunEvent } from "../executor/event.ts";
import type { RunResult } from "../executor/result.ts";
import { redactText } from "../report/redact.ts";
import type { ObservedRun, RunWatch } from "../run/observer.ts";
import type { TraceParent } from "../run/trace-parent.ts";

interface BegunStep {
  readonly path: string;
  readonly attributes: Attributes;
  readonly at: number;
}

/**
 * One run as spans: `lockkeeper.run` over release, lock, backup and each migration. Statements are none, and no SQL text
 * is anywhere.
 */
export class RunSpans implements RunWatch {
  readonly #tracer: Tracer;
  readonly #root: Span;
  readonly #below: Context;
  /** the phase under way; phases do not overlap */
  #phase: Span | undefined;
  #lookedAt = now();
  /** told to begin together where the driver sends several in one message, and done one after the other */
  readonly #steps: BegunStep[] = [];
  #stepEndedAt = 0;

  constructor(run: ObservedRun, tracer: Tracer, parent: TraceParent | undefined) {
    this.#tracer = tracer;
    const remote = parent === undefined ? undefined : spanContextOf(parent);
    // an event's sender does not wait for the run, so the run is no part of its trace; the two are linked
    const isLinked = run.trigger === "event";
    this.#root = tracer.startSpan(
      `lockkeeper.run ${run.target}`,
      {
        kind: kindOf(run),
        startTime: this.#lookedAt,
        attributes: attributesOf(run),
        ...(remote !== undefined && isLinked ? { links: [{ context: remote }] } : {}),
      },
      remote === undefined || isLinked ? ROOT_CONTEXT : trace.setSpanContext(ROOT_CONTEXT, remote),
    );
    this.#below = trace.setSpan(context.active(), this.#root);
    this.#enter("lockkeeper.release.fetch");
  }

  get place(): TraceParent {
    const { traceId, spanId, traceFlags } = this.#root.spanContext();
    return { traceId, spanId, isSampled: (traceFlags & TraceFlags.SAMPLED) !== 0 };
  }

  event(event: RunEvent): void {
    switch (event.kind) {
      case "release.verified":
        this.#leave({
          "lockkeeper.release.digest": event.digest,
          "lockkeeper.release.migrations": event.migrations,
        });
        break;
      case "plan.made":
        this.#lookedAt = now();
        break;
      case "bodies.fetched":
        this.#enter("lockkeeper.bodies.fetch", this.#lookedAt);
        this.#leave({ "lockkeeper.bodies": event.count, "lockkeeper.bodies.bytes": event.bytes });
        this.#enter("lockkeeper.lock.wait");
        break;
      case "lease.waiting":
        this.#phase?.addEvent("lockkeeper.lock.held", { "lockkeeper.run.id": event.runId });
        break;
      case "lease.acquired":
        this.#leave({ "lockkeeper.fencing_token": event.token });
        break;
      case "backup.started":
        this.#enter("lockkeeper.backup");
        break;
      case "backup.done":
        this.#leave({ "lockkeeper.backup.result": event.result });
        break;
      case "step.started":
        this.#steps.push({ path: event.path, attributes: stepAttributes(event), at: now() });
        break;
      case "step.succeeded":
        this.#endStep(event.path, event.durationMs);
        break;
      case "step.failed":
        this.#endStep(event.path, undefined, event);
        break;
      case "step.retried":
        this.#root.addEvent("lockkeeper.migration.retried", {
          "lockkeeper.migration": event.path,
          "db.response.status_code": event.sqlstate,
          "lockkeeper.attempt": event.attempt,
        });
        break;
      case "dependency.waiting":
        this.#root.addEvent("lockkeeper.dependency.waiting", { "lockkeeper.service": event.service });
        break;
      case "orphan.waiting":
        this.#root.addEvent("lockkeeper.orphan.waiting");
        break;
      case "rollback.started":
        this.#root.addEvent("lockkeeper.rollback.started", { "lockkeeper.steps": event.steps });
        break;
      case "run.started":
      case "statement.done":
      case "statement.probed":
      case "backfill.progress":
      case "step.output":
      case "backup.output":
      case "audit":
      case "warning":
      case "run.done":
    }
  }

  ended({ status, outcome, release, done, error }: RunResult): void {
    const stopped = status === "succeeded" ? null : error;
    const [underWay] = this.#steps;
    if (underWay !== undefined && stopped !== null) this.#endStep(underWay.path, undefined, stopped);
    if (this.#phase !== undefined && stopped !== null) fail(this.#phase, stopped);
    this.#leave({});
    this.#root.setAttributes({
      "lockkeeper.status": status,
      "lockkeeper.outcome": outcome ?? status,
      "lockkeeper.migrations.applied": done.length,
      ...(release === null ? {} : releaseAttributes(release)),
    });
    // one that goes on elsewhere has not failed
    if (stopped !== null && status !== "handing_over") fail(this.#root, stopped);
    this.#root.end(now());
  }

  #enter(name: string, startTime = now()): void {
    this.#phase?.end(startTime);
    this.#phase = this.#tracer.startSpan(name, { startTime }, this.#below);
  }

  #leave(attributes: Attributes): void {
    this.#phase?.setAttributes(attributes).end(now());
    this.#phase = undefined;
  }

  /** @param durationMs - as the driver measured it; undefined: until now */
  #endStep(path: string, durationMs: number | undefined, failure?: Failure): void {
    const index = this.#steps.findIndex((step) => step.path === path);
    const [step] = index < 0 ? [] : this.#steps.splice(index, 1);
    if (step === undefined) return;
    const { attributes, at } = step;
    const startTime = Math.max(at, this.#stepEndedAt);
    const endTime = durationMs === undefined ? now() : Math.min(startTime + durationMs, now());
    const span = this.#tracer.startSpan(
      `lockkeeper.migration ${path}`,
      { startTime, attributes },
      this.#below,
    );
    if (failure !== undefined) fail(span, failure);
    this.#stepEndedAt = Math.max(startTime, endTime);
    span.end(this.#stepEndedAt);
  }
}

type Failure = Pick<RunnerError, "message" | "fields"> & { readonly code: RunnerErrorCode };

/** Our code is the type; what a message may say is for callers over HTTP, so for a trace as well. */
function fail(span: Span, { code, message, fields }: Failure): void {
  const { sqlstate } = fields;
  span.setAttributes({
    "error.type": code,
    ...(typeof sqlstate === "string" ? { "db.response.status_code": sqlstate } : {}),
  });
  span.setStatus({ code: SpanStatusCode.ERROR, message: redactText(`${code}: ${message}`) });
}

function attributesOf(run: ObservedRun): Attributes {
  return {
    "lockkeeper.run.id": run.id,
    "lockkeeper.target": run.target,
    "lockkeeper.stream": run.stream,
    "lockkeeper.trigger": run.trigger,
    "lockkeeper.action": run.action,
    "lockkeeper.attempt": run.earlierAttempts + 1,
    "deployment.environment.name": run.environment,
  };
}

function releaseAttributes({ digest, version }: NonNullable<RunResult["release"]>): Attributes {
  return {
    "lockkeeper.release.digest": digest,
    ...(version === null ? {} : { "lockkeeper.release.version": version }),
  };
}

function stepAttributes(step: Extract<RunEvent, { readonly kind: "step.started" }>): Attributes {
  return {
    "lockkeeper.migration": step.path,
    "lockkeeper.migration.version": step.version,
    "lockkeeper.migration.direction": step.direction,
  };
}

function kindOf({ trigger }: ObservedRun): SpanKind {
  if (trigger === "http") return SpanKind.SERVER;
  return trigger === "event" ? SpanKind.CONSUMER : SpanKind.INTERNAL;
}

function spanContextOf({ traceId, spanId, isSampled }: TraceParent) {
  const traceFlags = isSampled ? TraceFlags.SAMPLED : TraceFlags.NONE;
  return { traceId, spanId, traceFlags, isRemote: true };
}

/** Milliseconds since 1970, finer than a `Date`. */
function now(): number {
  return performance.timeOrigin + performance.now();
}
