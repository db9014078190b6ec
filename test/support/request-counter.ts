import { createServer, connect, type Socket } from "node:net";

import { onTestFinished } from "vitest";

/** Counts the HTTP requests that pass to a server, unchanged. */
export interface RequestCounter {
  /** `http://127.0.0.1:1234`, to use in place of the server's own address */
  readonly endpoint: string;
  /** first lines of the requests since the last call, such as `GET /bucket/key` */
  take(): readonly string[];
}

/** Stands before `endpoint` until the test ends. Requests without a body of their own are told apart by their first line. */
export async function countRequests(endpoint: string): Promise<RequestCounter> {
  const { hostname, port } = new URL(endpoint);
  const sockets = new Set<Socket>();
  let seen: string[] = [];
  const server = createServer((client) => {
    const upstream = connect({ host: hostname, port: Number(port) });
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on("error", () => [client, upstream].forEach((other) => other.destroy()));
      socket.on("close", () => sockets.delete(socket));
    }
    client.on("data", (chunk) => {
      for (const [, line] of chunk
        .toString("latin1")
        .matchAll(/^((?:GET|HEAD|PUT|POST|DELETE) \S+) HTTP\/1\.1\r$/gm))
        seen.push(line ?? "");
    });
    client.pipe(upstream).pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the counter listens nowhere");
  return {
    endpoint: `http://127.0.0.1:${address.port}`,
    take() {
      const taken = seen;
      seen = [];
      return taken;
    },
  };
}
