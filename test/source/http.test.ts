import { type AddressInfo, createServer } from "node:net";
import { expect, onTestFinished, test } from "vitest";
import { HttpTimeout, makeHttpClient } from "../../src/source/http.ts";

test("gives up a connection that never stands", async () => {
  // It accepts, and then says nothing: the TLS handshake has no end.
  const mute = createServer((socket) => socket.on("error", () => {}));
  await new Promise<void>((resolve) => mute.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => void mute.close());
  const { port } = mute.address() as AddressInfo;
  const url = new URL(`https://127.0.0.1:${port}/`);
  const { signal } = new AbortController();
  const answer = makeHttpClient()(
    { method: "GET", url, headers: {} },
    { connectMs: 50, idleMs: 60_000 },
    signal,
  );
  await expect(answer).rejects.toThrow(HttpTimeout);
  await expect(answer).rejects.toThrow("no connection within 50 ms");
});
