import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { openDriver } from "../../../src/driver/open.ts";

/** A message of the server, as the protocol frames it. */
function message(type: string, ...parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const head = Buffer.alloc(5);
  head.write(type, 0, "latin1");
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const welcome = Buffer.concat([message("R", Buffer.alloc(4)), message("Z", Buffer.from("I"))]);
const shutdown = message(
  "E",
  Buffer.from("SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"),
);

// Seen when a database was dropped, or a server stopped, in the moment in which a connection was made.
test("a server that greets and ends a connection in one breath is an error of the call, not of the process", async () => {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end(Buffer.concat([welcome, shutdown])));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo;
  const driver = await openDriver(`postgres://someone@127.0.0.1:${port}/orders?sslmode=disable`);
  onTestFinished(() => driver.close());
  await expect(driver.state("orders", new AbortController().signal)).rejects.toMatchObject({
    code: expect.stringMatching(/^DATABASE_/),
  });
});
