import { receive } from "../../dispatch/received.ts";
import { targetsOf } from "../../dispatch/watched.ts";
import type { WokenBy } from "../../dispatch/waker.ts";
import { RunnerError } from "../../error.ts";
import { decodeEvent } from "../../event/decode.ts";
import type { BucketEvent, QueueMessage } from "../../event/event.ts";
import { answerBatch, type BatchAnswer } from "../../event/sqs.ts";
import { Execution, type Outcome } from "./execution.ts";
import { targetNamed, type Invocation, type LambdaHost } from "./host.ts";
import type { OwnMessage } from "./message.ts";

/** What an invocation did, for whoever waits for it or has its result sent somewhere. */
export interface Done {
  readonly woken: readonly Outcome[];
}

/**
 * Does what a message of our own asks for.
 *
 * @throws RunnerError `UNKNOWN_TARGET`, `CONFIG`; `DATABASE_…`, `SOURCE_…`, `DEADLINE` - it is worth another delivery
 */
export async function doMessage(
  message: OwnMessage,
  host: LambdaHost,
  invocation: Invocation,
): Promise<Done> {
  // Of a sweep each target has a whole execution for itself.
  const beginsElsewhere = message.kind === "sweep" || (message.kind === "wake" && host.isFront(invocation));
  const execution = new Execution(host, invocation, beginsElsewhere);
  const by = { ...senderOf(invocation, "schedule"), trigger: "converge", via: "schedule" } as const;
  switch (message.kind) {
    case "work":
      await execution.goOn(targetNamed(message.target, host));
      return { woken: [] };
    case "wake": {
      const target = targetNamed(message.target, host);
      const woken = await execution.waker.wakeTarget(target, by, execution.signal);
      return doneUnlessUnreachable(await execution.outcomesOf([woken]));
    }
    case "sweep":
      return doneUnlessUnreachable(
        await execution.outcomesOf(await execution.waker.sweep(by, execution.signal)),
      );
  }
}

/**
 * Does what a storage service's event asks for. What nobody knows is logged and done.
 *
 * @returns for a queue's batch which messages are to come again
 * @throws RunnerError `CONFIG`; `DATABASE_…`, `SOURCE_…`, `DEADLINE` - the event is worth another delivery
 */
export async function doEvent(
  event: unknown,
  host: LambdaHost,
  invocation: Invocation,
): Promise<Done | BatchAnswer> {
  const decoded = decodeEvent(event);
  const { events, via } = receive(decoded, (path) => senderOf(invocation, path), host.log);
  const woken =
    via === undefined || events.length === 0
      ? []
      : await wake(events, { ...senderOf(invocation, via), trigger: "event", via }, host, invocation);
  if (decoded.kind !== "batch") return doneUnlessUnreachable(woken);
  return answerBatch(decoded.messages, unreachableOf(decoded.messages, woken, host));
}

async function wake(
  events: readonly BucketEvent[],
  by: WokenBy,
  host: LambdaHost,
  invocation: Invocation,
): Promise<readonly Outcome[]> {
  // One is executed here, at once; of several each has a whole execution for itself. A front would cut a long statement off
  // after a minute of its locks, only to have it begun again.
  const isForSeveral = targetsOf(events, host.targets.values()).length > 1;
  const execution = new Execution(host, invocation, isForSeveral || host.isFront(invocation));
  return execution.outcomesOf(await execution.waker.wake(events, by, execution.signal));
}

/** Whoever Lambda's own permissions let through: the function's door is all that is known of them. */
function senderOf(
  { functionArn }: Invocation,
  via: WokenBy["via"] | "unknown",
): Pick<WokenBy, "issuer" | "subject" | "rule"> {
  return { issuer: `urn:lockkeeper:event:${via}`, subject: functionArn, rule: null };
}

function doneUnlessUnreachable(woken: readonly Outcome[]): Done {
  const unreachable = woken.filter(({ kind }) => kind === "unreachable");
  const [first] = unreachable;
  if (first === undefined) return { woken };
  const names = unreachable.map(({ target, code }) => `"${target}" (${code ?? "INTERNAL"})`);
  throw new RunnerError(first.code ?? "INTERNAL", `not done for ${names.join(", ")}`, {
    hint: "the log says why; the event is worth another delivery",
  });
}

/** Ids of messages that are about a target which is to be asked again. */
function unreachableOf(
  messages: readonly QueueMessage[],
  woken: readonly Outcome[],
  { targets }: LambdaHost,
): ReadonlySet<string> {
  const unreachable = new Set(woken.filter(({ kind }) => kind === "unreachable").map(({ target }) => target));
  const failed = messages.filter(({ content }) => {
    if (content.kind !== "events") return false;
    return targetsOf(content.events, targets.values()).some(({ name }) => unreachable.has(name));
  });
  return new Set(failed.map(({ id }) => id));
}
