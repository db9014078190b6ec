import { createConnection, createServer, type AddressInfo, type Socket } from "node:net";

import { BSON, type Document } from "mongodb";

/**
 * What becomes of a command on its way to the server: it passes; it is lost with its connection before it arrives; or the
 * server does it, and its answer is lost with the connection.
 */
export type Passage = "pass" | "cut" | "swallow";

/** Between a client and a server of the MongoDB protocol. */
export interface MongoProxy extends AsyncDisposable {
  readonly port: number;
}

/** OP_MSG: header, flags, then one document of kind 0 */
const opMsg = 2_013;
const documentAt = 21;

/**
 * Listens on a free port of loopback and passes on what comes, one whole message at a time.
 *
 * @param watch - asked of each command; nothing of its connection moves until it has answered. A document is sent in its place
 */
export async function startMongoProxy(
  upstreamPort: number,
  watch: (command: Document) => Passage | Document | Promise<Passage | Document>,
): Promise<MongoProxy> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = createConnection({ port: upstreamPort, host: "127.0.0.1" });
    const both = [client, upstream];
    const cut = (): void => both.forEach((socket) => socket.destroy());
    for (const socket of both) {
      socket.setNoDelay(true);
      sockets.add(socket);
      socket.on("error", cut);
      socket.on("close", () => {
        sockets.delete(socket);
        cut();
      });
    }
    const swallowed = new Set<number>();
    onMessages(client, async (message) => {
      const command = commandOf(message);
      const passage = command === undefined ? "pass" : await watch(command);
      if (passage === "cut") return cut();
      if (passage === "swallow") swallowed.add(headerOf(message).requestId);
      upstream.write(typeof passage === "string" ? message : rewritten(message, passage));
    });
    onMessages(upstream, (message) => {
      if (swallowed.has(headerOf(message).responseTo)) cut();
      else client.write(message);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address() as AddressInfo;
  return {
    port: address.port,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** The URL by way of a proxy; straight, because a replica set would tell its own address. */
export function throughProxy(url: string, { port }: MongoProxy): string {
  const found = /^(mongodb:\/\/(?:[^@/]*@)?)[^/]+(\/[^?]*)(?:\?(.*))?$/.exec(url);
  const parameters = (found?.[3] ?? "").split("&").filter((each) => !/^(directConnection=.*)?$/.test(each));
  return `${found?.[1]}127.0.0.1:${port}${found?.[2]}?${["directConnection=true", ...parameters].join("&")}`;
}

/** The port of a URL with one host. */
export function portOf(url: string): number {
  return Number(/^mongodb:\/\/(?:[^@/]*@)?[^/:]+:(\d+)/.exec(url)?.[1]);
}

/** Whole messages, one after the other; the next waits for what is done with the one before. */
function onMessages(socket: Socket, take: (message: Buffer) => void | Promise<void>): void {
  let rest: Buffer = Buffer.alloc(0);
  let busy = Promise.resolve();
  socket.on("data", (data: Buffer) => {
    rest = Buffer.concat([rest, data]);
    while (rest.length >= 16 && rest.length >= rest.readInt32LE(0)) {
      const message = rest.subarray(0, rest.readInt32LE(0));
      rest = rest.subarray(message.length);
      busy = busy.then(() => take(message));
    }
  });
}

interface Header {
  readonly requestId: number;
  readonly responseTo: number;
  readonly opCode: number;
}

function headerOf(message: Buffer): Header {
  return {
    requestId: message.readInt32LE(4),
    responseTo: message.readInt32LE(8),
    opCode: message.readInt32LE(12),
  };
}

/** The same message with another document. */
function rewritten(message: Buffer, command: Document): Buffer {
  const whole = Buffer.concat([message.subarray(0, documentAt), BSON.serialize(command)]);
  whole.writeInt32LE(whole.length, 0);
  return whole;
}

function commandOf(message: Buffer): Document | undefined {
  if (headerOf(message).opCode !== opMsg) return undefined;
  const size = message.readInt32LE(documentAt);
  return BSON.deserialize(message.subarray(documentAt, documentAt + size));
}
