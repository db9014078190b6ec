import { AsyncLocalStorage } from "node:async_hooks";
import { toRunnerError, type RunnerError } from "../error.ts";
import { originOf } from "../report/origin.ts";
import { readVariables } from "./config.ts";
import { gatewayOf, type Gateway } from "./lambda-gateway.ts";
import { openLambdaHost, type Invocation, type LambdaHost } from "./lambda-host.ts";
import type { LambdaHttp } from "./lambda-http.ts";
import { ownMessageOf } from "./lambda-message.ts";
import { openLog } from "./open-log.ts";

/** milliseconds to send what observers saw, at the most */
const flushMs = 1_000;
/** milliseconds to leave to Lambda itself */
const lastMs = 200;
/** milliseconds; with less than this a function can do little more than to say so */
const shortestMs = 10_000;

/** Of what Lambda calls a handler with, what is needed here. */
export interface LambdaContext {
  readonly awsRequestId: string;
  readonly invokedFunctionArn: string;
  getRemainingTimeInMillis(): number;
}

const invocations = new AsyncLocalStorage<Invocation>();
const now = (): Date => new Date();
const log = openLog(readVariables(), now, () => {
  const id = invocations.getStore()?.id;
  return id === undefined ? {} : { aws_request_id: id };
});

let opening: Promise<LambdaHost> | undefined;
let http: LambdaHttp | undefined;
/** invocations under way; on most of Lambda's hosts there is one at a time */
let underWay = 0;

/**
 * lockkeeper as a function: answers gateways, executes runs that are handed to it, and is woken by storage services,
 * queues, buses and schedules. Anything else is logged and answered as done.
 *
 * @throws Error named by the code of what is worth another delivery, without our stack
 */
export async function handler(event: unknown, context: LambdaContext): Promise<unknown> {
  const invocation = {
    id: context.awsRequestId,
    functionArn: context.invokedFunctionArn,
    msLeft: () => context.getRemainingTimeInMillis(),
  };
  underWay += 1;
  return invocations.run(invocation, async () => {
    const gateway = gatewayOf(event);
    try {
      return await dispatch(event, gateway, invocation);
    } catch (thrown) {
      const error = toRunnerError(thrown);
      logFailure(error);
      if (gateway === undefined) throw shown(error);
      const { answerProblem } = await import("./lambda-http.ts");
      return await answerProblem(gateway, error);
    } finally {
      underWay -= 1;
      await rest(invocation);
    }
  });
}

async function dispatch(
  event: unknown,
  gateway: Gateway | undefined,
  invocation: Invocation,
): Promise<unknown> {
  const host = await theHost(invocation);
  if (gateway !== undefined) {
    const { createLambdaHttp } = await import("./lambda-http.ts");
    http ??= createLambdaHttp(host);
    return http.answer(gateway, event, invocation);
  }
  const { doEvent, doMessage } = await import("./lambda-work.ts");
  const message = ownMessageOf(event);
  return message === undefined ? doEvent(event, host, invocation) : doMessage(message, host, invocation);
}

/** Opened once; an error is this invocation's alone, and the next one tries again. */
async function theHost(invocation: Invocation): Promise<LambdaHost> {
  opening ??= firstHost(invocation);
  try {
    return await opening;
  } catch (cause) {
    opening = undefined;
    throw cause;
  }
}

function firstHost(invocation: Invocation): Promise<LambdaHost> {
  const msLeft = invocation.msLeft();
  if (msLeft < shortestMs) {
    const message = `the function has ${Math.round(msLeft / 1000)} s, of which a run may use little: give it 60 s at the least`;
    log({ level: "warn", event: "function.short", fields: { message } });
  }
  return openLambdaHost(readVariables(), { log, now });
}

/**
 * Before an answer is given, because the process may be frozen with it: what observers saw is sent, and connections are
 * closed. After an hour in the ice the other side has forgotten them, and the next invocation would wait for an answer that
 * nobody sends.
 */
async function rest(invocation: Invocation): Promise<void> {
  const host = await opening?.catch(() => undefined);
  const ms = Math.min(flushMs, invocation.msLeft() - lastMs);
  if (ms > 0) await host?.observers.flush(ms);
  if (underWay === 0) await host?.disconnect();
}

function logFailure(error: RunnerError): void {
  const { code, message, hint } = error;
  const fields = { code, message, hint: hint ?? null, origin: originOf(error) };
  log({ level: "error", event: "function.failed", fields });
}

/** What Lambda records of it, and gives to whoever called: the code as its type. */
function shown({ code, message, hint }: RunnerError): Error {
  const error = new Error(hint === undefined ? message : `${message}; ${hint}`);
  error.name = code;
  error.stack = `${code}: ${error.message}`;
  return error;
}
