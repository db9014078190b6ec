import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished } from "vitest";

/** Something that OTLP is sent to, and what came. */
export interface Collector {
  readonly url: string;
  readonly received: { readonly path: string; readonly token: string | undefined; readonly body: string }[];
  /** All spans so far, attributes as a plain object. */
  spans(): readonly Span[];
  /** Resolves when a span whose name begins so has come. */
  span(name: string): Promise<Span>;
  /** Names of all metrics so far. */
  metrics(): readonly string[];
  resource(): Readonly<Record<string, unknown>>;
}

/** A span as it was sent. */
export interface Span {
  readonly name: string;
  readonly kind: number;
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly status: { readonly code: number; readonly message?: string };
  readonly links: readonly { readonly traceId: string; readonly spanId: string }[];
  readonly attributes: Readonly<Record<string, unknown>>;
}

interface Sent {
  readonly resourceSpans?: readonly {
    readonly resource: { readonly attributes: readonly Pair[] };
    readonly scopeSpans: readonly {
      readonly spans: readonly (Omit<Span, "attributes"> & { readonly attributes: readonly Pair[] })[];
    }[];
  }[];
  readonly resourceMetrics?: readonly {
    readonly scopeMetrics: readonly { readonly metrics: readonly { readonly name: string }[] }[];
  }[];
}

interface Pair {
  readonly key: string;
  readonly value: Readonly<Record<string, unknown>>;
}

/** @param answers - false: it takes what comes, and never says so */
export async function startCollector(answers = true): Promise<Collector> {
  const received: Collector["received"] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { url = "", headers } = request;
      const token = headers["x-token"];
      received.push({
        path: url,
        token: typeof token === "string" ? token : undefined,
        body: Buffer.concat(chunks).toString(),
      });
      if (answers) response.writeHead(200, { "content-type": "application/json" }).end("{}");
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const all = (): readonly Sent[] => received.map(({ body }) => JSON.parse(body) as Sent);
  const resources = () => all().flatMap(({ resourceSpans = [] }) => resourceSpans);
  const spans = (): readonly Span[] =>
    resources()
      .flatMap(({ scopeSpans }) => scopeSpans)
      .flatMap((scope) => scope.spans)
      .map((span) => ({ ...span, attributes: objectOf(span.attributes) }));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    spans,
    async span(name) {
      const find = (): Span | undefined => spans().find((span) => span.name.startsWith(name));
      await expect.poll(find, { timeout: 60_000 }).toBeDefined();
      const found = find();
      if (found === undefined) throw new Error(`${name} vanished`);
      return found;
    },
    metrics: () =>
      all()
        .flatMap(({ resourceMetrics = [] }) => resourceMetrics)
        .flatMap(({ scopeMetrics }) => scopeMetrics)
        .flatMap(({ metrics }) => metrics)
        .map(({ name }) => name),
    resource: () => objectOf(resources()[0]?.resource.attributes ?? []),
  };
}

/** `{ stringValue: "x" }` is `"x"`. */
function objectOf(pairs: readonly Pair[]): Readonly<Record<string, unknown>> {
  return Object.fromEntries(pairs.map(({ key, value }) => [key, Object.values(value)[0]]));
}
