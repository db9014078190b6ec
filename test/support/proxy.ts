import { type AddressInfo, createServer, connect, type Socket } from "node:net";
import { onTestFinished } from "vitest";

/** A TCP connection in the middle that counts, and does to the network what a test asks for. */
export interface Proxy {
  /** `url` with the proxy in place of its host and port */
  readonly url: string;
  /** connections taken so far */
  connections(): number;
  /** how often the client spoke after the server had, on all connections: round trips, the one of start-up and each of log-in included */
  roundTrips(): number;
  /** Ends all connections at once, as a firewall that forgets them; new ones are taken. */
  cut(): void;
  /** Lets nothing through in either direction any more, on any connection, without ending one; again with `false`. */
  stall(isStalled: boolean): void;
  /** Called with each piece that a client sends, before it is sent on. */
  onRequest(listener: RequestListener | undefined): void;
}

/** May have the piece lost (`drop`), or sent on while all that comes back on its connection stays in the proxy (`hold`). */
export type RequestListener = (bytes: Buffer) => "drop" | "hold" | void;

/** Starts a proxy on loopback before the server that `url` names; it ends with the running test. */
export async function startProxy(url: string): Promise<Proxy> {
  const upstream = new URL(url);
  const pairs = new Set<readonly [Socket, Socket]>();
  let taken = 0;
  let trips = 0;
  let stalled = false;
  let listener: RequestListener | undefined;
  const server = createServer((client) => {
    taken += 1;
    const onward = connect({ host: upstream.hostname, port: Number(upstream.port) });
    const pair = [client, onward] as const;
    pairs.add(pair);
    if (stalled) for (const socket of pair) socket.pause();
    let isClientsTurn = true;
    client.on("data", (bytes) => {
      if (isClientsTurn) trips += 1;
      isClientsTurn = false;
      const verdict = listener?.(bytes);
      if (!stalled && verdict !== "drop") onward.write(bytes);
      if (verdict === "hold") onward.pause();
    });
    onward.on("data", (bytes) => {
      isClientsTurn = true;
      client.write(bytes);
    });
    for (const [from, to] of [pair, pair.toReversed()]) {
      from?.setNoDelay(true);
      from?.on("end", () => to?.end());
      from?.on("error", () => to?.destroy());
      from?.on("close", () => {
        to?.destroy();
        pairs.delete(pair);
      });
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const cut = () => {
    for (const pair of pairs) for (const socket of pair) socket.destroy();
  };
  onTestFinished(
    () =>
      new Promise<void>((resolve) => {
        cut();
        server.close(() => resolve());
      }),
  );
  const through = new URL(url);
  through.port = String(port);
  return {
    url: through.href,
    connections: () => taken,
    roundTrips: () => trips,
    cut,
    stall(isStalled) {
      stalled = isStalled;
      for (const pair of pairs)
        for (const socket of pair)
          if (isStalled) socket.pause();
          else socket.resume();
    },
    onRequest(next) {
      listener = next;
    },
  };
}
