import { AsyncLocalStorage } from "node:async_hooks";
import type { Variables } from "../../cli/context.ts";
import { toRunnerError, type RunnerError } from "../../error.ts";
import type { LogRecord } from "../../report/log.ts";
import { logTo } from "../../report/log-writer.ts";
import { originOf } from "../../report/origin.ts";
import { lastFlushMs } from "../open-observers.ts";
import { gatewayOf, type Gateway } from "./gateway.ts";
import { openLambdaHost, type Invocation, type LambdaHost } from "./host.ts";
import type { LambdaHttp } from "./http.ts";
import { ownMessageOf } from "./message.ts";

/** milliseconds to send what observers saw, at the most; few runs are a caller's, who would wait as long for the answer */
const flushMs = lastFlushMs;
const callersFlushMs = 1_000;
/** milliseconds to leave to Lambda itself */
const lastMs = 200;
/** milliseconds; of less than this, what a run leaves for its end is a large part */
const shortestMs = 30_000;

/** Of what Lambda calls a handler with, what is needed here. */
export interface LambdaContext {
  readonly awsRequestId: string;
  readonly invokedFunctionArn: string;
  getRemainingTimeInMillis(): number;
}

/** What Lambda calls. */
export type LambdaHandler = (event: unknown, context: LambdaContext) => Promise<unknown>;

/**
 * lockkeeper as a function: answers gateways, executes runs that are handed to it, and is woken by storage services,
 * queues, buses and schedules. Anything else is logged and answered as done.
 *
 * It throws errors that are named by the code of what is worth another delivery, without our stack.
 *
 * @param variables - those of {@link openLambdaHost}
 * @param stream - for lines of the log
 */
export function createHandler(variables: Variables, stream: { write(line: string): unknown }): LambdaHandler {
  const invocations = new AsyncLocalStorage<Invocation>();
  const now = (): Date => new Date();
  const log = logTo(stream, now, {
    besides() {
      const id = invocations.getStore()?.id;
      return id === undefined ? {} : { aws_request_id: id };
    },
  });
  const instance = new Instance(() => openLambdaHost(variables, { log, now }));
  return (event, context) => {
    const invocation = {
      id: context.awsRequestId,
      functionArn: context.invokedFunctionArn,
      msLeft: () => context.getRemainingTimeInMillis(),
    };
    return invocations.run(invocation, () => answer(event, invocation, instance, log));
  };
}

async function answer(
  event: unknown,
  invocation: Invocation,
  instance: Instance,
  log: (record: LogRecord) => void,
): Promise<unknown> {
  const gateway = gatewayOf(event);
  instance.begins();
  try {
    return await dispatch(event, gateway, invocation, instance);
  } catch (thrown) {
    const error = toRunnerError(thrown);
    // What a caller did wrong is nobody's alarm here.
    const level = error.http < 500 ? "warn" : "error";
    log({ level, event: "function.failed", fields: fieldsOf(error) });
    if (gateway === undefined) throw shown(error);
    const { answerProblem } = await import("./http.ts");
    return await answerProblem(gateway, error);
  } finally {
    await instance.rests(invocation, gateway === undefined ? flushMs : callersFlushMs);
  }
}

async function dispatch(
  event: unknown,
  gateway: Gateway | undefined,
  invocation: Invocation,
  instance: Instance,
): Promise<unknown> {
  const host = await instance.host(invocation);
  if (gateway !== undefined) return (await instance.http(host)).answer(gateway, event, invocation);
  const { doEvent, doMessage } = await import("./work.ts");
  const message = ownMessageOf(event);
  return message === undefined ? doEvent(event, host, invocation) : doMessage(message, host, invocation);
}

/** One process of the function, from one invocation to the next. */
class Instance {
  readonly #open: () => Promise<LambdaHost>;
  #opening: Promise<LambdaHost> | undefined;
  #http: LambdaHttp | undefined;
  /** invocations under way; on most of Lambda's hosts there is one at a time */
  #underWay = 0;

  constructor(open: () => Promise<LambdaHost>) {
    this.#open = open;
  }

  begins(): void {
    this.#underWay += 1;
  }

  /** Opened once; an error is this invocation's alone, and the next one tries again. */
  async host(invocation: Invocation): Promise<LambdaHost> {
    const isFirst = this.#opening === undefined;
    this.#opening ??= this.#open();
    try {
      const host = await this.#opening;
      if (isFirst) warnOfShortTime(host, invocation);
      return host;
    } catch (cause) {
      this.#opening = undefined;
      throw cause;
    }
  }

  async http(host: LambdaHost): Promise<LambdaHttp> {
    const { createLambdaHttp } = await import("./http.ts");
    return (this.#http ??= createLambdaHttp(host));
  }

  /**
   * Before an answer is given, because the process may be frozen with it: what observers saw is sent, and connections are
   * closed. After an hour in the ice the other side has forgotten them, and the next invocation would wait for an answer
   * that nobody sends.
   */
  async rests(invocation: Invocation, mostMs: number): Promise<void> {
    this.#underWay -= 1;
    const host = await this.#opening?.catch(() => undefined);
    const ms = Math.min(mostMs, invocation.msLeft() - lastMs);
    if (ms > 0) await host?.observers.flush(ms);
    if (this.#underWay === 0) await host?.disconnect();
  }
}

function warnOfShortTime({ log }: LambdaHost, invocation: Invocation): void {
  const msLeft = invocation.msLeft();
  if (msLeft >= shortestMs) return;
  const message = `the function has ${Math.round(msLeft / 1000)} s, of which a run may use little: give it 60 s at the least`;
  log({ level: "warn", event: "function.short", fields: { message } });
}

function fieldsOf(error: RunnerError): LogRecord["fields"] {
  const { code, message, hint } = error;
  return { code, message, hint: hint ?? null, origin: originOf(error) };
}

/** What Lambda records of it, and gives to whoever called: the code as its type. */
function shown({ code, message, hint }: RunnerError): Error {
  const error = new Error(hint === undefined ? message : `${message}; ${hint}`);
  error.name = code;
  error.stack = `${code}: ${error.message}`;
  return error;
}
