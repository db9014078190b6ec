import { ref, schemas, type JsonSchema } from "./openapi-schema.ts";

/** The API's description, OpenAPI 3.1. Kept by hand; tests compare it with the routes and with real answers. */
export function openApiDocument(version: string, publicUrl: string): JsonSchema {
  return {
    openapi: "3.1.0",
    info: {
      title: "lockkeeper",
      version,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      description:
        "Applies signed releases of database migrations. A caller names a configured target and a release digest; it never sends SQL, a bucket or a database URL.",
    },
    servers: [{ url: publicUrl }],
    security: [{ bearer: [] }],
    paths,
    components: {
      schemas,
      securitySchemes: {
        bearer: {
          type: "http",
          scheme: "bearer",
          bearerFormat: "JWT",
          description: "An OIDC token of an issuer in the policy, for the policy's audience",
        },
        hook: {
          type: "apiKey",
          in: "header",
          name: "X-Signature",
          description:
            "A signature over the body, as the policy says for this hook: an HMAC in a header of its own, Standard Webhooks, or that of Amazon SNS within the body",
        },
      },
    },
  };
}

/** What a problem of each status says. */
const meanings = {
  400: "The request is not valid; each field is named",
  401: "Nobody that the server knows: no valid bearer token, or signature",
  403: "Not allowed by the policy",
  404: "No such target or run, or none that the caller may see",
  409: "The state of the database, of the run or of the token does not allow it; see the code",
  412: "The bucket has another release than the one expected",
  413: "The body is larger than 16 KiB",
  415: "The body is not plain JSON by its headers",
  422: "The release was refused (the run is recorded and linked), or the Idempotency-Key was used for something else",
  429: "Too many requests or runs; see Retry-After",
  504: "No answer from the database or bucket in time; try again",
  503: "A database or bucket cannot be used, or the server is stopping; see Retry-After",
} as const;

const open: JsonSchema = { security: [] };
const signed: JsonSchema = { security: [{ hook: [] }] };
const hookName = parameter("hook", "path", "Name of a hook in the policy");
const prefer = parameter("Prefer", "header", "wait=N; without it there is no wait");
const taken = { description: "Authentic, and nothing to do: a ping, or a subscription to confirm by hand" };
const runId = parameter("id", "path", "Run id: target, dot, ULID");
const targetName = parameter("name", "path", "Name of a configured target");
const wait = parameter("wait", "query", "Seconds to wait for the end, at most 55", {
  type: "integer",
  minimum: 0,
  default: 0,
});
const pageSize = parameter("pageSize", "query", "At most 100", { type: "integer", minimum: 1, maximum: 100 });
const pageToken = parameter("pageToken", "query", "nextPageToken of the page before");

const retryAfter = { "Retry-After": header("Seconds until it is worth asking again") };
const openRun = {
  description: "The run goes on",
  headers: { ...retryAfter, Location: header("The run") },
  content: json(ref("Run")),
};
const gateAnswers = {
  "200": answer("It succeeded", ref("Run")),
  "202": openRun,
  "409": problem("It failed, was refused or canceled; the problem is the run's own"),
};

const event = {
  summary: "A storage service says that an object was written",
  description:
    "S3 by SNS, SQS or EventBridge, GCS by Pub/Sub push or Eventarc. Targets that watch the object converge to what their bucket offers; nothing that is sent is used as an address. What nobody knows or watches is acknowledged. Needs the right `wake`; the token is not used up.",
  requestBody: { required: false, content: { "*/*": { schema: {} } } },
  responses: {
    "204": {
      description: "Taken: a run goes on, nothing is to be done, or nothing would come of another delivery",
    },
    ...problems(401, 403, 429, 503, 504),
  },
};

const paths = {
  "/v1/runs": {
    post: {
      operationId: "postRun",
      summary: "Apply or roll back a release; or plan, verify or look without changing anything",
      description:
        "Waits up to 25 s for the end (`Prefer: wait=N` for another time, `respond-async` for none). A request for a release that is being applied by this server answers with that run; other runs of the target are waited for. One token may change one thing of a database: sent again with the same body it answers with the same run, with another body it is refused.",
      parameters: [
        parameter("gate", "query", "1: answer by status code like the run's gate", { enum: ["0", "1"] }),
        parameter("Prefer", "header", "wait=N, respond-async"),
        parameter(
          "Idempotency-Key",
          "header",
          "Repeats the very same request without a second run; 1 to 128 visible ASCII characters",
        ),
      ],
      requestBody: { required: true, content: json(ref("RunRequest")) },
      responses: {
        "200": {
          ...answer("The run has ended, successfully or not; or the answer to a look", {
            oneOf: [ref("Run"), ref("Look")],
          }),
          headers: { Location: header("The run"), "Preference-Applied": header("What was taken of Prefer") },
        },
        "202": {
          ...openRun,
          headers: { ...openRun.headers, "Preference-Applied": header("What was taken of Prefer") },
        },
        ...problems(400, 401, 403, 404, 409, 412, 413, 415, 422, 429, 503, 504),
      },
    },
    get: {
      operationId: "listRuns",
      summary: "Runs of a target, newest first",
      parameters: [
        { ...parameter("target", "query", "Name of a configured target"), required: true },
        parameter("status", "query", "Only runs in this status", schemas.Run.properties["status"]),
        parameter("since", "query", "Only runs asked for since then", {
          type: "string",
          format: "date-time",
        }),
        pageSize,
        pageToken,
      ],
      responses: {
        "200": { ...answer("A page", ref("RunPage")), headers: { Link: header("rel=next") } },
        ...problems(400, 401, 403, 404, 503, 504),
      },
    },
  },
  "/": { post: { operationId: "postEventToRoot", ...event } },
  "/events": { post: { operationId: "postEvent", ...event } },
  "/v1/hooks/{hook}": {
    post: {
      operationId: "postHook",
      summary: "A run request from a sender that signs its body",
      ...signed,
      parameters: [hookName, prefer],
      requestBody: { required: true, content: json(ref("RunRequest")) },
      responses: {
        "200": answer("As POST /v1/runs", { oneOf: [ref("Run"), ref("Look")] }),
        "202": openRun,
        "204": taken,
        ...problems(400, 401, 403, 404, 409, 412, 413, 422, 429, 503, 504),
      },
    },
  },
  "/v1/hooks/{hook}/{target}": {
    post: {
      operationId: "postHookForTarget",
      summary: "Something has happened: apply what is newest",
      description:
        "The body proves who sends it, and is not read. The same delivery again answers with the same run. Answers at once; a run that starts by itself undoes no rollback and tries no failed release twice. Where a digest is required there is none, so production refuses.",
      ...signed,
      parameters: [hookName, parameter("target", "path", "Name of a configured target"), prefer],
      requestBody: { required: true, content: { "*/*": { schema: {} } } },
      responses: {
        "200": answer("The run that this delivery began has ended", ref("Run")),
        "202": openRun,
        "204": taken,
        ...problems(400, 401, 403, 404, 409, 412, 422, 429, 503, 504),
      },
    },
  },
  "/v1/runs/{id}": {
    get: {
      operationId: "getRun",
      summary: "A run, whatever became of it",
      parameters: [runId, wait],
      responses: {
        "200": {
          ...answer("The run", ref("Run")),
          headers: { ETag: header("Of this state"), ...retryAfter },
        },
        "304": { description: "As the If-None-Match sent" },
        ...problems(400, 401, 403, 404, 429, 503, 504),
      },
    },
  },
  "/v1/runs/{id}/gate": {
    get: {
      operationId: "getRunGate",
      summary: "A run, for callers that read only the status code",
      parameters: [runId, wait],
      responses: { ...problems(400, 401, 403, 404, 429, 503, 504), ...gateAnswers },
    },
  },
  "/v1/runs/{id}/events": {
    get: {
      operationId: "getRunEvents",
      summary: "What happens in a run, until run.done",
      description:
        "Event ids are ids of history entries. A stream is closed after 15 minutes; connect again with Last-Event-ID.",
      parameters: [
        runId,
        parameter("Last-Event-ID", "header", "Go on after this event", { type: "integer", minimum: 0 }),
      ],
      responses: {
        "200": {
          description: "Server-sent events; NDJSON where that is what is accepted",
          content: {
            "text/event-stream": { schema: { type: "string" } },
            "application/x-ndjson": { schema: ref("RunEvent") },
          },
        },
        ...problems(400, 401, 403, 404, 429, 503, 504),
      },
    },
  },
  "/v1/runs/{id}/cancel": {
    post: {
      operationId: "cancelRun",
      summary: "Ask a run to stop at its next safe point",
      parameters: [runId],
      requestBody: { required: true, content: json(ref("CancelRequest")) },
      responses: {
        "202": answer("Asked", ref("Run")),
        ...problems(400, 401, 403, 404, 409, 413, 415, 429, 503, 504),
      },
    },
  },
  "/v1/targets": {
    get: {
      operationId: "listTargets",
      summary: "Targets that the caller may look at",
      responses: { "200": answer("All of them", ref("TargetPage")), ...problems(400, 401, 403) },
    },
  },
  "/v1/targets/{name}": {
    get: {
      operationId: "getTarget",
      summary: "Where a database stands",
      parameters: [targetName],
      responses: {
        "200": answer("Its state", ref("Target")),
        ...problems(400, 401, 403, 404, 429, 503, 504),
      },
    },
  },
  "/v1/targets/{name}/history": {
    get: {
      operationId: "getHistory",
      summary: "What was done to a database, oldest first",
      parameters: [
        targetName,
        parameter("run", "query", "Only entries of this run"),
        parameter("last", "query", "Only the newest so many", { type: "integer", minimum: 1, maximum: 100 }),
        pageSize,
        pageToken,
      ],
      responses: {
        "200": { ...answer("A page", ref("HistoryPage")), headers: { Link: header("rel=next") } },
        ...problems(400, 401, 403, 404, 503, 504),
      },
    },
  },
  "/v1/targets/{name}/gate": {
    get: {
      operationId: "getTargetGate",
      summary: "Whether a release, a place or a version is applied",
      description:
        "One of the three parameters. Open also where more has followed, and closed again once some of it was rolled back; a place (`chain`) is answered from the database alone, whatever becomes of the bucket.",
      parameters: [
        targetName,
        parameter("release", "query", "Release digest", { type: "string", pattern: "^sha256:[0-9a-f]{64}$" }),
        parameter(
          "chain",
          "query",
          "Place in the stream, as publish tells it: the number of migrations, a colon, the chain's head",
          {
            type: "string",
            pattern: "^(0|[1-9][0-9]{0,8}):[0-9a-f]{64}$",
          },
        ),
        parameter("min", "query", "Lowest version that will do", {
          type: "string",
          pattern: String.raw`^[0-9]+(\.[0-9]+)*$`,
        }),
      ],
      responses: {
        "200": answer("Applied", ref("GateOpen")),
        ...problems(400, 401, 403, 404, 409, 429, 503, 504),
      },
    },
  },
  "/v1/targets/{name}/unlock": {
    post: {
      operationId: "unlockTarget",
      summary: "Take the lease from a run whose process died",
      parameters: [targetName],
      requestBody: { required: true, content: json(ref("UnlockRequest")) },
      responses: {
        "200": answer("Taken", ref("Unlocked")),
        ...problems(400, 401, 403, 404, 409, 413, 415, 429, 503, 504),
      },
    },
  },
  "/health/live": {
    get: {
      operationId: "getLive",
      summary: "The process answers",
      ...open,
      responses: { "200": answer("It does", ref("Health")) },
    },
  },
  "/health/ready": {
    get: {
      operationId: "getReady",
      summary: "The server takes requests",
      ...open,
      responses: { "200": answer("It does", ref("Health")), ...problems(503) },
    },
  },
  "/version": {
    get: {
      operationId: "getVersion",
      summary: "This program's version",
      ...open,
      responses: { "200": answer("The version", ref("Version")) },
    },
  },
  "/openapi.json": {
    get: {
      operationId: "getOpenApi",
      summary: "This document",
      ...open,
      responses: { "200": answer("OpenAPI 3.1", { type: "object" }) },
    },
  },
} as const;

function parameter(
  name: string,
  place: "path" | "query" | "header",
  description: string,
  schema: JsonSchema = { type: "string" },
) {
  return { name, in: place, description, required: place === "path", schema } as const;
}

function header(description: string) {
  return { description, schema: { type: "string" } } as const;
}

function json(schema: JsonSchema) {
  return { "application/json": { schema } } as const;
}

function answer(description: string, schema: JsonSchema) {
  return { description, content: json(schema) } as const;
}

function problem(description: string) {
  return { description, content: { "application/problem+json": { schema: ref("Problem") } } } as const;
}

function problems(...statuses: readonly (keyof typeof meanings)[]) {
  return Object.fromEntries(statuses.map((status) => [String(status), problem(meanings[status])]));
}
