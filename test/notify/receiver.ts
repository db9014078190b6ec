import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { onTestFinished } from "vitest";

/** One request as it arrived. */
export interface Received {
  readonly path: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly text: string;
  // oxlint-disable-next-line typescript/no-explicit-any -- messages are picked apart by the tests
  readonly json: any;
}

/** What a receiver says; `hang` never says anything. */
export type Said =
  | "hang"
  | {
      readonly status: number;
      readonly body?: string;
      /** milliseconds before it says so; default 0 */
      readonly afterMs?: number;
      readonly headers?: Readonly<Record<string, string>>;
    };

/** Somebody's HTTP service, on loopback until the test ends. */
export interface Receiver {
  readonly url: string;
  readonly received: Received[];
}

/** @param say - answers by the request and how many came before */
export async function receiver(
  say: (request: Received, before: number) => Said = () => ({ status: 204 }),
): Promise<Receiver> {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      const headers = Object.fromEntries(
        Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
      );
      const one = { path: request.url ?? "", headers, text, json: JSON.parse(text) as unknown };
      const said = say(one, received.length);
      received.push(one);
      if (said === "hang") return;
      setTimeout(() => response.writeHead(said.status, said.headers).end(said.body), said.afterMs ?? 0);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, received };
}
