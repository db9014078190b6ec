import { createServer } from "node:http";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";
import type { World } from "./world.ts";

/** What stands between a client and the app: the network, and whatever goes wrong on it. True: it has answered. */
export type Fault = (request: IncomingMessage, response: ServerResponse, seen: number) => boolean;

/** A world's app behind a socket. */
export interface Front {
  readonly url: string;
  /** `Authorization` of each request so far, also of those that a fault answered */
  readonly tokens: readonly string[];
  /** `Idempotency-Key` of each POST */
  readonly keys: readonly string[];
  /** method and path of each request */
  readonly paths: readonly string[];
  /** the same of those that the app has answered */
  readonly answered: readonly string[];
}

/**
 * Puts the world's app behind a socket; `fault` may answer in its place, from the first request (1) on, and answers for
 * which `isLost` never arrive.
 */
export async function front(
  world: World,
  fault: Fault = () => false,
  isLost: (seen: number) => boolean = () => false,
): Promise<Front> {
  const tokens: string[] = [];
  const keys: string[] = [];
  const paths: string[] = [];
  const answered: string[] = [];
  const url = await listen((request, response) => {
    void (async () => {
      tokens.push(request.headers.authorization ?? "");
      paths.push(`${request.method ?? ""} ${request.url ?? ""}`);
      if (request.method === "POST") keys.push(String(request.headers["idempotency-key"]));
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const seen = tokens.length;
      if (fault(request, response, seen)) return;
      const answer = await world.app.hono.request(request.url ?? "/", {
        method: request.method ?? "GET",
        headers: Object.entries(request.headers).map(
          ([name, value]) => [name, String(value)] as [string, string],
        ),
        ...(chunks.length === 0 ? {} : { body: Buffer.concat(chunks) }),
      });
      if (isLost(seen)) {
        response.destroy();
        return;
      }
      response.writeHead(answer.status, Object.fromEntries(answer.headers.entries()));
      response.end(Buffer.from(await answer.arrayBuffer()));
      answered.push(`${request.method ?? ""} ${request.url ?? ""}`);
    })();
  });
  return { url, tokens, keys, paths, answered };
}

/** A server on a free port of this machine, for as long as the test; gives its URL. */
export async function listen(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(
    () =>
      new Promise<void>((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  );
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
