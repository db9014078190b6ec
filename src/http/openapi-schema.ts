import { traits } from "../error.ts";

/** A JSON Schema as OpenAPI 3.1 takes it. */
export interface JsonSchema {
  readonly [keyword: string]: unknown;
}

/** A reference to one of {@link schemas}. */
export function ref(name: keyof typeof schemas): JsonSchema {
  return { $ref: `#/components/schemas/${name}` };
}

const text = { type: "string" } as const;
const textOrNull = { type: ["string", "null"] } as const;
const count = { type: "integer", minimum: 0 } as const;
const flag = { type: "boolean" } as const;
const time = { type: "string", format: "date-time" } as const;
const timeOrNull = { type: ["string", "null"], format: "date-time" } as const;
const uri = { type: "string", format: "uri" } as const;
const digest = { type: "string", pattern: "^sha256:[0-9a-f]{64}$" } as const;
const digestOrNull = { type: ["string", "null"], pattern: "^sha256:[0-9a-f]{64}$" } as const;
const version = {
  type: "string",
  pattern: String.raw`^[0-9]+(\.[0-9]+)*$`,
  description: "A migration's version, as its file name wrote it",
} as const;
const versionOrNull = { ...version, type: ["string", "null"] } as const;
const fields = {
  type: "object",
  additionalProperties: { type: ["string", "number", "boolean", "null"] },
} as const;
const direction = { enum: ["up", "down"] } as const;
const code = { enum: Object.keys(traits), description: "Stable name of the failure" } as const;

/** A closed object, all of whose properties are required but the ones named as optional. */
function object(properties: Readonly<Record<string, JsonSchema>>, optional: readonly string[] = []) {
  return {
    type: "object",
    properties,
    required: Object.keys(properties).filter((name) => !optional.includes(name)),
    additionalProperties: false,
  } as const;
}

/** Or null; written as OpenAPI 3.1 wants it. */
function nullable(schema: JsonSchema): JsonSchema {
  return { oneOf: [schema, { type: "null" }] };
}

const local = (name: string): JsonSchema => ({ $ref: `#/components/schemas/${name}` });
const release = object({ digest: text, version: { type: ["integer", "null"] } });
const position = object({ version: versionOrNull, length: count, chain: textOrNull });
const targetSummary = {
  name: text,
  stream: text,
  environment: text,
  links: object({ self: uri, history: uri, runs: uri }),
};

/** The documents that go in and out, by name. */
export const schemas = {
  RunRequest: object(
    {
      target: { ...text, minLength: 1, maxLength: 100, description: "Name of a configured target" },
      action: { enum: ["apply", "rollback", "plan", "status", "verify"] },
      release: {
        oneOf: [object({ digest }), { type: "null" }],
        description: "The release expected; any other is refused",
      },
      to: {
        ...versionOrNull,
        description: 'Apply up to, or roll back to, this version; "0" is before the first',
      },
      plan: { ...digestOrNull, description: "Digest of an approved plan; any other is refused" },
      deadline: { ...textOrNull, description: 'ISO 8601 duration for the whole run, such as "PT10M"' },
      labels: {
        type: "object",
        maxProperties: 16,
        additionalProperties: { ...text, maxLength: 256 },
        description: "Kept with the run: commit, pipeline…",
      },
      onFailure: {
        enum: ["keep", "rollback", null],
        description:
          "Apply: when a migration fails, keep what was applied before it, or go back to where the run began by the down files, which takes the right to roll back as well; by default as the target is configured",
      },
      allow: {
        oneOf: [{ type: "array", items: { enum: ["breaking"] }, maxItems: 1 }, { type: "null" }],
        description:
          "Apply: what is otherwise refused; breaking: migrations that the registry of services marks as such",
      },
    },
    ["release", "to", "plan", "deadline", "labels", "onFailure", "allow"],
  ),
  Run: object({
    id: text,
    target: text,
    stream: text,
    action: { enum: ["apply", "rollback"] },
    status: {
      enum: [
        "queued",
        "waiting_lock",
        "running",
        "handing_over",
        "canceling",
        "succeeded",
        "failed",
        "canceled",
      ],
      description: "handing_over: its server has stopped or was lost, and another one goes on with it",
    },
    done: flag,
    outcome: { enum: ["applied", "noop", "refused", "rolled_back", "needs_attention", "failed", null] },
    release: nullable(release),
    from: versionOrNull,
    to: versionOrNull,
    progress: object({ applied: count, total: count, current: textOrNull, message: text }),
    trigger: object({
      kind: { enum: ["http", "cli", "library", "event", "init", "converge"] },
      actor: text,
      issuer: text,
      rule: textOrNull,
    }),
    labels: { type: "object", additionalProperties: text },
    cancelRequested: flag,
    attempt: { ...count, description: "Executors that have had it; 0 before the first" },
    createdAt: time,
    startedAt: timeOrNull,
    endedAt: timeOrNull,
    backup: {
      ...nullable(
        object({
          by: text,
          durationMs: { type: "number", minimum: 0 },
          result: { enum: ["done", "failed", "stopped"] },
        }),
      ),
      description: "What became of the backup before the first step; null where none was asked for",
    },
    error: nullable(local("RunError")),
    links: object({ self: uri, gate: uri, events: uri, cancel: uri, target: uri }),
  }),
  RunError: object({ code, retryable: flag, message: text, hint: textOrNull, fields }),
  Look: object(
    {
      id: { type: "null", description: "A look is not recorded" },
      target: text,
      action: { enum: ["plan", "status", "verify"] },
      status: { const: "succeeded" },
      done: { const: true },
      outcome: { enum: ["planned", "verified", "noop"] },
      plan: local("Plan"),
      state: local("Target"),
      release: object({
        digest: text,
        version: { type: ["integer", "null"] },
        epoch: { type: ["integer", "null"] },
        expires: timeOrNull,
        signers: { type: "array", items: text },
        migrations: count,
        pending: count,
      }),
    },
    ["plan", "state", "release"],
  ),
  Plan: object({
    digest: { ...digest, description: "Send it as `plan` to run exactly this" },
    release: object({ digest: text }),
    from: versionOrNull,
    to: versionOrNull,
    steps: {
      type: "array",
      items: object({
        version,
        path: text,
        direction,
        sha256: text,
        tx: { enum: ["one", "none"] },
        locks: { type: "array", items: text },
        resumeAt: { ...count, description: "Statements that an earlier attempt has done" },
        breaking: { ...flag, description: 'Applied only with "allow": ["breaking"]' },
        dependencies: {
          type: "array",
          items: object({ service: text, minVersion: text }),
          description: "Other services, and the versions that their databases must have",
        },
      }),
    },
  }),
  RunPage: object({ runs: { type: "array", items: local("Run") }, nextPageToken: textOrNull }),
  TargetSummary: object(targetSummary),
  TargetPage: object({ targets: { type: "array", items: local("TargetSummary") } }),
  Target: object({
    ...targetSummary,
    position,
    completed: { ...textOrNull, description: "Digest of the release last applied whole" },
    release: nullable(object({ digest: text, version: { type: ["integer", "null"] }, expires: timeOrNull })),
    fresh: {
      ...flag,
      description: "false: the release has expired, or nobody vouches that it is the newest",
    },
    stale: nullable(local("RunError")),
    pending: object({
      total: count,
      next: { type: "array", items: object({ version, path: text }), description: "The first fifty" },
    }),
    unfinished: nullable(local("HistoryEntry")),
    needsAttention: flag,
    held: nullable({
      ...object({ run: text, version: versionOrNull, reason: text }),
      description:
        "After a rollback: nothing that starts by itself goes up again until a newer release comes, or a person or pipeline asks",
    }),
    failed: nullable({
      ...object({ release: text, run: text, error: local("RunError") }),
      description:
        "The release that failed last: nothing that starts by itself tries it again; correct and publish, or ask for a run",
    }),
    paused: flag,
    inStep: nullable({
      ...object({ tool: text, table: text }),
      description: "Another tool's table that every run keeps true, so that the tool can take over again",
    }),
    lease: nullable(object({ run: text, holder: text, acquiredAt: time, expiresAt: time })),
    lastRun: nullable(local("Run")),
    problem: nullable(local("RunError")),
  }),
  HistoryEntry: object({
    id: count,
    version: text,
    path: text,
    direction,
    status: { enum: ["started", "done", "failed", "needs_attention"] },
    origin: { enum: ["run", "checkpoint", "covered", "baseline", "repair", "adopt"] },
    sha256: text,
    signed: flag,
    statements: object({ done: count, total: count }),
    rows: {
      type: ["integer", "null"],
      description: "Of a backfill that is not done yet: rows that it has changed so far",
    },
    startedAt: time,
    durationMs: { type: "number", minimum: 0 },
    appliedBy: text,
    run: text,
    note: textOrNull,
    error: nullable(local("RunError")),
  }),
  HistoryPage: object({
    target: text,
    history: { type: "array", items: local("HistoryEntry") },
    nextPageToken: textOrNull,
  }),
  GateOpen: object({ target: text, applied: { const: true }, position, completed: textOrNull }),
  CancelRequest: object({ reason: { ...text, minLength: 1, maxLength: 500 } }, ["reason"]),
  UnlockRequest: object({
    run: { ...text, description: "The run that holds the lease" },
    reason: { ...text, minLength: 1, maxLength: 500 },
  }),
  Unlocked: object({ target: text, run: text, token: count }),
  RunEvent: object({
    id: { type: ["integer", "null"], description: "Send the last one as Last-Event-ID to go on after it" },
    event: {
      enum: [
        "run.status",
        "step.started",
        "step.succeeded",
        "step.failed",
        "step.needs_attention",
        "run.done",
        "problem",
        "heartbeat",
      ],
    },
    data: { oneOf: [local("Run"), local("HistoryEntry"), local("Problem"), { type: "null" }] },
  }),
  Problem: object(
    {
      type: { ...text, pattern: "^urn:lockkeeper:problem:[a-z0-9-]+$" },
      title: text,
      status: { type: "integer" },
      code,
      retryable: flag,
      detail: text,
      hint: text,
      fields,
      instance: { ...text, description: "The request, as the server's log calls it" },
      target: text,
      run: text,
      links: { type: "object", additionalProperties: uri },
    },
    ["detail", "hint", "fields", "instance", "target", "run", "links"],
  ),
  Health: object({ status: { const: "ok" } }),
  Version: object({ name: { const: "lockkeeper" }, version: text }),
} as const satisfies Record<string, JsonSchema>;
