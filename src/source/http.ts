import type * as Http from "node:http";
import type * as Https from "node:https";
import { sourceLimits } from "./source.ts";

/** One HTTP request, whole. */
export interface HttpRequest {
  readonly method: "GET" | "POST";
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Buffer;
}

/** Keeps connections open between requests. Idle ones do not keep the process alive. */
export type HttpClient = (
  request: HttpRequest,
  limits: { readonly connectMs: number; readonly idleMs: number },
  signal: AbortSignal,
) => Promise<Http.IncomingMessage>;

/** A request given up because no connection stood, or no byte came, for too long. */
export class HttpTimeout extends Error {
  override readonly name = "HttpTimeout";
}

// A little more than `concurrency`, so that a retry never waits for a socket.
const sockets = 2 * sourceLimits.concurrency;

/**
 * A client whose every wait has an end: to connect, and between two bytes, also of the body.
 *
 * The body of an answer comes as the server stores it: nothing is decoded. Redirects are not followed.
 * The promise, or later the body, fails with {@link HttpTimeout}, the signal's `AbortError` or the connection's own error.
 */
export function makeHttpClient(): HttpClient {
  const agents = new Map<string, Http.Agent>();
  return ({ method, url, headers, body }, { connectMs, idleMs }, signal) =>
    new Promise((resolve, reject) => {
      const { Agent: NewAgent, request } = moduleFor(url.protocol);
      const agent = agents.get(url.protocol) ?? new NewAgent({ keepAlive: true, maxSockets: sockets });
      agents.set(url.protocol, agent);
      const length: Record<string, string> =
        body === undefined ? {} : { "content-length": String(body.length) };
      const outgoing = request(url, { method, agent, headers: { ...headers, ...length }, signal });
      let answer: Http.IncomingMessage | undefined;
      // Once the answer is there, destroying the request would hide the reason from the body's reader.
      const giveUp = (what: string) => (answer ?? outgoing).destroy(new HttpTimeout(what));
      const connecting = setTimeout(() => giveUp(`no connection within ${connectMs} ms`), connectMs);
      outgoing.once("socket", (socket) => {
        if (!socket.connecting) clearTimeout(connecting);
        else
          socket.once(url.protocol === "http:" ? "connect" : "secureConnect", () => clearTimeout(connecting));
      });
      outgoing.setTimeout(idleMs, () => giveUp(`no byte for ${idleMs} ms`));
      outgoing.once("response", (incoming) => {
        answer = incoming;
        resolve(incoming);
      });
      outgoing.on("error", reject);
      outgoing.once("close", () => clearTimeout(connecting));
      outgoing.end(body);
    });
}

/**
 * Only what is needed, and not by `import`: of `node:http` that makes a copy with all its names, for two of which Node then
 * loads its WebSockets: as long as Node itself takes to start.
 */
function moduleFor(protocol: string): typeof Http | typeof Https {
  return protocol === "http:"
    ? process.getBuiltinModule("node:http")
    : process.getBuiltinModule("node:https");
}
