import type { HttpParts } from "./context.ts";
import { problemOf } from "./problem.ts";
import { toRunnerError } from "../error.ts";
import { viewEntry, viewRun } from "./view.ts";
import type { Update } from "./watch.ts";

/** How events are written: server-sent events, or one JSON document a line. */
export type EventFormat = "sse" | "ndjson";

/** One event on its way to a watcher. */
interface StreamEvent {
  /** a history id, from which a watcher that reconnects goes on */
  readonly id: number | null;
  readonly event: string;
  readonly data: unknown;
}

/** Media types by format. */
export const eventTypes = {
  sse: "text/event-stream; charset=utf-8",
  ndjson: "application/x-ndjson",
} as const satisfies Record<EventFormat, string>;

/** An update of a run as the event that watchers see. */
function eventOf(update: Update, parts: Pick<HttpParts, "links">): StreamEvent {
  switch (update.kind) {
    case "run":
      return { id: null, event: "run.status", data: viewRun(update.run, parts.links) };
    case "entry":
      return { id: update.resumeId, event: stepEvents[update.entry.status], data: viewEntry(update.entry) };
    case "done":
      return { id: null, event: "run.done", data: viewRun(update.run, parts.links) };
  }
}

/**
 * The updates as a body that is written as fast as it is read: a watcher that stops reading stops the looking as well.
 * A fault ends it with an event `problem`; `onClose` is called once, however it ends.
 */
export function streamEvents(
  updates: AsyncGenerator<Update, void>,
  format: EventFormat,
  parts: Pick<HttpParts, "links" | "limits" | "log">,
  onClose: () => void,
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  const write = format === "sse" ? writeSse : writeNdjson;
  let next: Promise<IteratorResult<Update, void>> | undefined;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        next ??= updates.next();
        try {
          const result = await orHeartbeat(next, parts.limits.heartbeatMs);
          if (result === "heartbeat") {
            controller.enqueue(encoder.encode(heartbeats[format]));
            return;
          }
          next = undefined;
          if (result.done !== true) {
            controller.enqueue(encoder.encode(write(eventOf(result.value, parts))));
            return;
          }
        } catch (thrown) {
          const error = toRunnerError(thrown);
          parts.log({
            level: "warn",
            event: "stream.failed",
            fields: { code: error.code, message: error.message },
          });
          controller.enqueue(encoder.encode(write({ id: null, event: "problem", data: problemOf(error) })));
        }
        onClose();
        controller.close();
      },
      cancel() {
        onClose();
      },
    },
    { highWaterMark: 1 },
  );
}

const stepEvents = {
  started: "step.started",
  done: "step.succeeded",
  failed: "step.failed",
  needs_attention: "step.needs_attention",
} as const;

/** Comments keep a connection open without being an event; NDJSON has none, so there it is one. */
const heartbeats = {
  sse: ": heartbeat\n\n",
  ndjson: '{"id":null,"event":"heartbeat","data":null}\n',
} as const;

/** JSON has no line breaks of its own, so one `data` line is enough. */
function writeSse({ id, event, data }: StreamEvent): string {
  return `${id === null ? "" : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

function writeNdjson(event: StreamEvent): string {
  return `${JSON.stringify(event)}\n`;
}

async function orHeartbeat<T>(next: Promise<T>, ms: number): Promise<T | "heartbeat"> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      next,
      new Promise<"heartbeat">((resolve) => (timer = setTimeout(resolve, ms, "heartbeat"))),
    ]);
  } finally {
    clearTimeout(timer);
  }
}
