import type { AuditedMigration, AuditFacts, AuditOutcome } from "../audit/record.ts";
import { type AuditWriting, pendingRecord, type PendingRecord, writeAudit } from "../audit/write.ts";
import type { LeasedSession } from "../driver/session.ts";
import type { StreamState } from "../driver/stream-state.ts";
import { RunnerError, toRunnerError } from "../error.ts";
import type { Emit } from "../executor/event.ts";
import type { AuditLink } from "../history/audit.ts";
import type { Position } from "../history/entry.ts";
import { automaticTriggers, type RunOutcome } from "../history/run.ts";
import type { Goal } from "../plan/plan.ts";
import type { HighWaterMark, Release } from "../release/release.ts";
import type { RunRequest } from "./request.ts";
import type { Target } from "./target.ts";

/** milliseconds to record how a run ended: others may write at the same time */
const lastRecordMs = 15_000;

/** How a run ended, as far as its record needs it. */
export interface TrailEnd {
  readonly status: "succeeded" | "failed" | "canceled" | "handing_over";
  readonly outcome: RunOutcome | null;
  readonly error: RunnerError | null;
  readonly to: Position | null;
  readonly migrations: readonly AuditedMigration[];
  /** the database does not answer any more, so it need not be tried */
  readonly isAway: boolean;
}

/** What the audit log is told of one run: which of it, `audit/record.ts` says. */
export class AuditTrail {
  readonly #request: RunRequest;
  readonly #target: Target;
  readonly #now: () => Date;
  readonly #emit: Emit;
  #state: StreamState | undefined;
  #offered: string | null = null;
  #release: Release | undefined;
  #attempt: number | null = null;
  #begun: AuditLink | null = null;

  constructor(request: RunRequest, target: Target, { now, emit }: { now(): Date; readonly emit: Emit }) {
    this.#request = request;
    this.#target = target;
    this.#now = now;
    this.#emit = emit;
  }

  /** What the database said, and the bucket's word for its newest release. */
  seen(state: StreamState, offered: string | undefined): void {
    this.#state = state;
    this.#offered = offered ?? null;
  }

  verified(release: Release): void {
    this.#release = release;
  }

  /**
   * Before the first change.
   *
   * @throws RunnerError `AUDIT_UNAVAILABLE` - then nothing may be changed
   */
  async begin(
    state: StreamState,
    to: Position,
    { attempt, signal }: Pick<LeasedSession, "attempt" | "signal">,
  ): Promise<void> {
    this.#state = state;
    this.#attempt = attempt.number;
    this.#begun = await this.#write({ ...this.#facts("run.begun"), to: to.version }, signal);
  }

  /** When all is over; gives the link that stands for the run, null where it has no record. Never throws. */
  async end(end: TrailEnd): Promise<AuditLink | null> {
    const facts = this.#endFacts(end);
    if (!(await this.#isToRecord(end, facts))) return this.#begun;
    try {
      if (end.isAway) throw new RunnerError("DATABASE_UNAVAILABLE", "the database does not answer");
      return await this.#write(facts, AbortSignal.timeout(lastRecordMs));
    } catch (cause) {
      const { message } = toRunnerError(cause);
      this.#emit({ kind: "warning", message: `the end of this run is not in the audit log: ${message}` });
      return this.#begun;
    }
  }

  /** The same as {@link end}, for whoever adds the record: of a run that had nothing to do before anybody recorded it. */
  pendingEnd(at: Position): PendingRecord {
    const end = {
      status: "succeeded",
      outcome: "noop",
      error: null,
      to: at,
      migrations: [],
      isAway: false,
    } as const;
    return pendingRecord(this.#endFacts(end), this.#writing());
  }

  async #isToRecord({ status, outcome, error, isAway }: TrailEnd, facts: AuditFacts): Promise<boolean> {
    if (this.#begun !== null) return true;
    if (status === "handing_over" || isAway) return false;
    // It was just tried.
    if (error?.code === "AUDIT_UNAVAILABLE") return false;
    if (this.#request.isAccepted) return true;
    // A database that was never ours, perhaps the wrong one, is left as it was found.
    if (outcome !== "refused" || this.#state?.exists !== true) return false;
    return !automaticTriggers.has(this.#request.trigger) || !(await this.#isSaid(facts));
  }

  /** Whether the newest record is of the same refusal: a container that starts again and again would fill the log. */
  async #isSaid({ code, target, offered, action }: AuditFacts): Promise<boolean> {
    const { readRecord } = await import("../audit/read.ts");
    const newest = await this.#target.driver.audit
      .read({ after: 0, limit: 1, newest: true }, AbortSignal.timeout(lastRecordMs))
      .catch(() => []);
    const [entry] = newest;
    const said = entry === undefined ? undefined : readRecord(entry);
    return (
      said?.event === "run.ended" &&
      said.code === code &&
      said.target === target &&
      said.offered === offered &&
      said.action === action
    );
  }

  #endFacts({ status, outcome, error, to, migrations }: TrailEnd): AuditFacts {
    const facts = this.#facts("run.ended");
    const before = this.#state?.highWaterMark ?? null;
    return {
      ...facts,
      outcome: outcomeOf(status, outcome),
      code: error?.code ?? null,
      to: to?.version ?? null,
      highWaterMark: { before, after: this.#begun === null ? before : (markOf(this.#release) ?? before) },
      migrations,
    };
  }

  #facts(event: AuditFacts["event"]): AuditFacts & { readonly event: typeof event } {
    const { id, action, goal, release, plan, trigger, caller, onFailure = null, allow = [] } = this.#request;
    const { name, stream, environment } = this.#target;
    const verified = this.#release;
    return {
      event,
      action,
      target: name,
      stream,
      environment,
      run: id,
      attempt: this.#attempt,
      trigger,
      principal: { ...caller, claims: {} },
      requested: { goal: goalText(goal), digest: release, plan, onFailure, allow },
      offered: this.#offered,
      rootVersion: verified?.root?.version ?? this.#state?.rootVersion ?? null,
      release:
        verified === undefined
          ? null
          : {
              epoch: verified.rank?.epoch ?? null,
              version: verified.rank?.version ?? null,
              digest: verified.digest,
            },
      signers: verified?.signers ?? [],
      highWaterMark: { before: this.#state?.highWaterMark ?? null, after: null },
      from: this.#state?.position.version ?? null,
    };
  }

  async #write(facts: AuditFacts, signal: AbortSignal): Promise<AuditLink> {
    const { seq, sha256 } = await writeAudit(this.#target.driver.audit, facts, {
      signal,
      ...this.#writing(),
    });
    return { seq, sha256 };
  }

  #writing(): Omit<AuditWriting, "signal"> {
    return { now: this.#now, onEntry: (entry) => this.#emit({ kind: "audit", ...entry }) };
  }
}

function outcomeOf(status: TrailEnd["status"], outcome: RunOutcome | null): AuditOutcome {
  if (outcome !== null) return outcome;
  return status === "handing_over" ? "handed_over" : "canceled";
}

function markOf(release: Release | undefined): HighWaterMark | undefined {
  return release?.rank === undefined ? undefined : { ...release.rank, digest: release.digest };
}

/** A goal in words: `latest`, `up 2`, `version 42`, `redo`. */
export function goalText(goal: Goal): string {
  switch (goal.kind) {
    case "latest":
    case "redo":
      return goal.kind;
    case "steps":
      return `${goal.direction} ${goal.count}`;
    case "version":
      return `version ${goal.version}`;
  }
}
