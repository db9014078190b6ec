import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** One request of a runner to the bucket. */
export interface Download {
  readonly path: string;
}

/** What becomes of a request that was struck. */
export type DownloadFate =
  /** go on as if nothing had been */
  | "pass"
  /** the connection is reset */
  | "reset"
  /** it ends as if all had been sent */
  | "end"
  /** answer 500 */
  | "error"
  /** nothing more, and the connection stays */
  | "silence";

/** A fault that waits for one request: before it is passed on, or when half of the answer has been sent. */
export interface DownloadIntervention {
  readonly moment: "before" | "in";
  strike(): Promise<DownloadFate>;
}

/** Stands between one runner and the bucket. */
export interface BucketProxy extends AsyncDisposable {
  readonly endpoint: string;
  /** From now on every request is answered by 503. */
  fail(): void;
}

/** Starts one on loopback before the S3 server at `upstream`. Requests pass unchanged, so their signatures stay valid. */
export async function startBucketProxy(
  upstream: string,
  watch: (download: Download) => Promise<DownloadIntervention | undefined>,
): Promise<BucketProxy> {
  let hasFailed = false;
  const server = createServer((incoming, outgoing) => {
    incoming.on("error", () => undefined);
    outgoing.on("error", () => undefined);
    void pass(incoming, outgoing).catch(() => outgoing.destroy());
  });
  async function pass(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    if (hasFailed) return fail(outgoing, 503, "SlowDown");
    const path = (incoming.url ?? "").split("?")[0] ?? "";
    const intervention = await watch({ path });
    if (intervention?.moment === "before" && !(await suffer(outgoing, await intervention.strike()))) return;
    const { status, headers, body } = await ask(upstream, incoming);
    outgoing.writeHead(status, headers);
    if (intervention?.moment !== "in") {
      outgoing.end(body);
      return;
    }
    const half = body.subarray(0, Math.floor(body.length / 2));
    await new Promise((resolve) => outgoing.write(half.length === 0 ? " " : half, resolve));
    if (await suffer(outgoing, await intervention.strike())) outgoing.end(body.subarray(half.length));
  }
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    fail() {
      hasFailed = true;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

/** Does to the connection what the fault wants; true when the request goes on. */
async function suffer(outgoing: ServerResponse, fate: DownloadFate): Promise<boolean> {
  switch (fate) {
    case "pass":
      return true;
    case "reset":
      outgoing.socket?.resetAndDestroy();
      return false;
    case "end":
      outgoing.socket?.end();
      return false;
    case "error":
      if (outgoing.headersSent) outgoing.socket?.resetAndDestroy();
      else fail(outgoing, 500, "InternalError");
      return false;
    case "silence":
      return false;
  }
}

function fail(outgoing: ServerResponse, status: number, code: string): void {
  outgoing.writeHead(status, { "content-type": "application/xml" });
  outgoing.end(`<?xml version="1.0"?><Error><Code>${code}</Code><Message>a fault</Message></Error>`);
}

async function ask(
  upstream: string,
  incoming: IncomingMessage,
): Promise<{ status: number; headers: NodeJS.Dict<string | string[]>; body: Buffer }> {
  const { hostname, port } = new URL(upstream);
  return new Promise((resolve, reject) => {
    const { method, url, headers } = incoming;
    const asked = request({ hostname, port, method, path: url, headers, agent: false }, (answer) => {
      const parts: Buffer[] = [];
      answer.on("data", (part: Buffer) => parts.push(part));
      answer.on("error", reject);
      answer.on("end", () =>
        resolve({
          status: answer.statusCode ?? 502,
          headers: answer.headers,
          body: Buffer.concat(parts),
        }),
      );
    });
    asked.on("error", reject);
    incoming.pipe(asked);
  });
}
