import { createServer, connect, type AddressInfo, type Socket } from "node:net";

/** A way to the database that can be closed. */
export interface Door {
  readonly url: string;
  /** Nobody gets through, and whoever is there is cut off. */
  close(): Promise<void>;
  open(): Promise<void>;
  stop(): Promise<void>;
}

/** A door on loopback before the database that the URL names; `stop` is its user's to call. */
export async function makeDoor(database: string): Promise<Door> {
  const to = new URL(database);
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const onward = connect({ host: to.hostname, port: Number(to.port) });
    for (const [one, other] of [
      [client, onward],
      [onward, client],
    ] as const) {
      sockets.add(one);
      one.pipe(other);
      one.on("error", () => other.destroy());
      one.on("close", () => {
        sockets.delete(one);
        other.destroy();
      });
    }
  });
  const listen = (port: number): Promise<void> =>
    new Promise((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, "127.0.0.1", resolve);
    });
  await listen(0);
  const { port } = server.address() as AddressInfo;
  const url = new URL(database);
  url.host = `127.0.0.1:${port}`;
  const close = (): Promise<void> =>
    new Promise((resolve) => {
      server.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  return { url: url.href, close, open: () => listen(port), stop: close };
}
