import { version } from "../../build.ts";
import { RunnerError, toRunnerError } from "../../error.ts";
import { createApp, type HttpApp } from "../../http/app.ts";
import { httpLimits, type HttpLimits } from "../../http/limits.ts";
import { problemOf, problemResponse } from "../../http/problem.ts";
import { openCallers, type Callers } from "../open-callers.ts";
import type { Gateway, GatewayAnswer } from "./gateway.ts";
import { marginMs, type Invocation, type LambdaHost } from "./host.ts";

/**
 * Milliseconds of an event stream. Gateways give an answer only when it is whole: so a stream tells what is known, waits a
 * little for more and ends, and its reader comes back with the `Last-Event-ID`, as browsers do by themselves.
 */
const streamMs = 5_000;

/** The API as a function answers it. Runs begin in executions of their own, because this one ends with its answer. */
export interface LambdaHttp {
  answer(gateway: Gateway, event: unknown, invocation: Invocation): Promise<GatewayAnswer>;
}

/** The API for the targets of a function; its policy is read with the first request. */
export function createLambdaHttp(host: LambdaHost): LambdaHttp {
  let callers: Callers | undefined;
  /** by their public address: a function may have several gateways */
  const apps = new Map<string, HttpApp>();
  const appAt = async (publicUrl: string, invocation: Invocation): Promise<HttpApp> => {
    callers ??= await openCallers(host.config, host);
    const app = apps.get(publicUrl) ?? appFor(publicUrl, callers, host, invocation);
    apps.set(publicUrl, app);
    return app;
  };
  return {
    async answer(gateway, event, invocation) {
      const publicUrl = host.config.publicUrl ?? gateway.publicUrl;
      if (publicUrl === undefined) throw unknownAddress(host);
      const app = await appAt(publicUrl, invocation);
      const { sourceIp } = gateway;
      const incoming = { socket: { remoteAddress: sourceIp } };
      const response = await app.hono.fetch(gateway.request(publicUrl), { event, incoming });
      const answer = await gateway.answer(response);
      await app.drained();
      return answer;
    },
  };
}

/** What a caller sees of an error before the API could be asked. */
export function answerProblem(gateway: Gateway, thrown: unknown): Promise<GatewayAnswer> {
  return gateway.answer(problemResponse(problemOf(toRunnerError(thrown))));
}

function appFor(publicUrl: string, callers: Callers, host: LambdaHost, invocation: Invocation): HttpApp {
  const { targets, log, now } = host;
  return createApp({
    targets,
    ...callers,
    publicUrl,
    limits: limitsWithin(invocation.msLeft()),
    version: version(),
    // nobody tells a function that it is to stop
    signal: new AbortController().signal,
    handOver: host.handOver(invocation),
    log,
    now,
  });
}

/** So that a function answers by itself before its time is over; every invocation of it has the same. */
function limitsWithin(msLeft: number): HttpLimits {
  const ms = Math.max(0, Math.floor(msLeft - marginMs(msLeft)));
  return {
    ...httpLimits,
    defaultWaitMs: Math.min(httpLimits.defaultWaitMs, ms),
    maxWaitMs: Math.min(httpLimits.maxWaitMs, ms),
    readMs: Math.min(httpLimits.readMs, ms),
    streamMs: Math.min(streamMs, ms),
  };
}

function unknownAddress({ config }: LambdaHost): RunnerError {
  return new RunnerError("CONFIG", `${config.file}: publicUrl is missing`, {
    hint: "behind a load balancer, say where callers reach the function, for instance publicUrl: https://migrate.example",
  });
}
