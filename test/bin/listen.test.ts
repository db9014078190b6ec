import { connect, type Socket } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { listen, type ListeningServer } from "../../src/bin/listen.ts";
import { createWorld, openBarrier, users, type World } from "../http/world.ts";

/** The world's server on a socket; it stops with the world. */
async function onSocket(world: World): Promise<ListeningServer> {
  const server = await listen({ ...world.deps, publicUrl: undefined }, { host: "127.0.0.1", port: 0 });
  onTestFinished(async () => {
    world.stop();
    await server.stopped;
  });
  return server;
}

/** Sends bytes as they are and collects the answer until the server closes. */
async function raw(server: ListeningServer, text: string): Promise<string> {
  const socket = openSocket(server);
  socket.write(text);
  let answer = "";
  for await (const chunk of socket) answer += String(chunk);
  return answer;
}

function openSocket(server: ListeningServer): Socket {
  const { hostname, port } = new URL(server.url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => void socket.destroy());
  return socket;
}

describe("a server on a socket", () => {
  test("answers a whole run like curl asks for it, with links to where it listens", async () => {
    const world = await createWorld();
    const server = await onSocket(world);
    const digest = await world.bucket.publish(users);
    const response = await fetch(`${server.url}/v1/runs`, {
      method: "POST",
      headers: { authorization: `Bearer ${await world.token()}`, "content-type": "application/json" },
      body: JSON.stringify({ target: "orders", action: "apply", release: { digest } }),
    });
    const run = (await response.json()) as { outcome: string; links: { self: string; events: string } };
    expect([response.status, run.outcome]).toEqual([200, "applied"]);
    expect(run.links.self.startsWith(`${server.url}/v1/runs/orders.`)).toBe(true);
    const events = await fetch(run.links.events, {
      headers: { authorization: `Bearer ${await world.token()}` },
    });
    expect(await events.text()).toContain("event: run.done");
  });

  test("refuses headers above 16 KiB", async () => {
    const server = await onSocket(await createWorld());
    const response = await fetch(`${server.url}/v1/targets`, {
      headers: { authorization: `Bearer ${"x".repeat(20_000)}` },
    });
    expect(response.status).toBe(431);
  });

  test("answers a body that is too large, and does not wait for its end", async () => {
    const world = await createWorld();
    const server = await onSocket(world);
    const head = `POST /v1/runs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await world.token()}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n`;
    const answer = await raw(server, `${head}5000\r\n${" ".repeat(0x5000)}\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 413 /);
  });

  test("gives up a client that does not finish its headers", async () => {
    const server = await onSocket(await createWorld());
    expect(await raw(server, "GET /health/live HTTP/1.1\r\nHost: x\r\n")).toMatch(/^HTTP\/1\.1 408 /);
  });

  test(
    "goes on answering while hundreds of slow clients hang on it, and ends them all",
    { timeout: 120_000 },
    async () => {
      const world = await createWorld();
      const server = await onSocket(world);
      const authorization = `Authorization: Bearer ${await world.token()}`;
      const beginnings = [
        "GET /health/live HTTP/1.1\r\nHost: x\r\nX-Slow: ",
        // without a token the body is not waited for, so this one is answered at once
        "POST /v1/runs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
        `POST /v1/runs HTTP/1.1\r\nHost: x\r\n${authorization}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{`,
      ];
      const before = process.memoryUsage().rss;
      const sockets = Array.from({ length: 300 }, (_, index) => {
        const socket = openSocket(server)
          .on("error", () => undefined)
          .resume();
        socket.write(beginnings[index % beginnings.length] ?? "");
        return socket;
      });
      const closed = Promise.all(
        sockets.map((socket) => new Promise<void>((end) => socket.once("close", () => end()))),
      );
      await expect.poll(() => sockets.every(({ connecting }) => !connecting)).toBe(true);
      for (let asked = 0; asked < 20; asked++) {
        expect((await fetch(`${server.url}/health/live`)).status).toBe(200);
      }
      // A connection costs kilobytes: its headers, and what of a body has arrived.
      expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024);
      await closed;
      expect(await world.database.query("select to_regclass('lockkeeper.runs') as runs")).toEqual([
        { runs: null },
      ]);
    },
  );

  test("answers what is no HTTP with 400 and stays up", async () => {
    const world = await createWorld();
    const server = await onSocket(world);
    expect(await raw(server, "nonsense\r\n\r\n")).toMatch(/^HTTP\/1\.1 400 /);
    expect(
      await raw(server, "GET http://evil.test/%zz HTTP/1.1\r\nHost: ]\r\nConnection: close\r\n\r\n"),
    ).toMatch(/^HTTP\/1\.1 4/);
    expect((await fetch(`${server.url}/health/live`)).status).toBe(200);
  });

  test("goes on with a run whose caller has hung up", async () => {
    const world = await createWorld();
    const server = await onSocket(world);
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const hangUp = new AbortController();
    const asked = fetch(`${server.url}/v1/runs`, {
      method: "POST",
      headers: { authorization: `Bearer ${await world.token()}`, "content-type": "application/json" },
      body: JSON.stringify({ target: "orders", action: "apply" }),
      signal: hangUp.signal,
    }).catch(() => undefined);
    await barrier.reached();
    hangUp.abort();
    await asked;
    await barrier.release();
    await expect
      .poll(async () => (await world.database.query("select status from lockkeeper.runs"))[0])
      .toEqual({ status: "succeeded" });
  });

  test("forgets a watcher whose client has gone", async () => {
    const world = await createWorld({ limits: { watchers: 1 } });
    const server = await onSocket(world);
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const { body: run } = await world.send("POST", "/v1/runs", {
      body: { target: "orders", action: "apply" },
      headers: { prefer: "respond-async" },
    });
    const headers = { authorization: `Bearer ${await world.token()}` };
    const events = `${server.url}/v1/runs/${run.id}/events`;
    const leave = new AbortController();
    const first = await fetch(events, { headers, signal: leave.signal });
    await first.body?.getReader().read();
    expect((await fetch(events, { headers })).status).toBe(429);
    leave.abort();
    const next = async (): Promise<number> => {
      const response = await fetch(events, { headers });
      await response.body?.cancel();
      return response.status;
    };
    await expect.poll(next).toBe(200);
    await barrier.release();
  });

  test("stops when told: runs are handed over, streams and waits end, then nobody listens", async () => {
    const world = await createWorld({ limits: { watchers: 2 } });
    const server = await onSocket(world);
    const barrier = await openBarrier(world);
    await world.bucket.publish(barrier.migration);
    const headers = { authorization: `Bearer ${await world.token()}` };
    const asked = await fetch(`${server.url}/v1/runs`, {
      method: "POST",
      headers: { ...headers, "content-type": "application/json", prefer: "respond-async" },
      body: JSON.stringify({ target: "orders", action: "apply" }),
    });
    const run = (await asked.json()) as { id: string };
    await barrier.reached();
    const stream = await fetch(`${server.url}/v1/runs/${run.id}/events`, { headers });
    const wait = (): Promise<Response> => fetch(`${server.url}/v1/runs/${run.id}?wait=50`, { headers });
    // The one that asks whether both are there may be there before it, and then it is this one that is too many.
    const waitInTurn = async (): Promise<Response> => {
      const response = await wait();
      return response.status === 429 ? waitInTurn() : response;
    };
    const waiting = waitInTurn();
    // both are there when a third is one too many
    const third = async (): Promise<number> =>
      (await fetch(`${server.url}/v1/runs/${run.id}?wait=1`, { headers })).status;
    await expect.poll(third).toBe(429);
    // The run waits for the barrier, the watcher for the run: only being told to stop ends them.
    world.stop();
    await server.stopped;
    await stream.text();
    expect((await waiting).status).toBe(200);
    await expect(world.database.query("select status from lockkeeper.runs")).resolves.toEqual([
      { status: "handing_over" },
    ]);
    await expect(fetch(`${server.url}/health/live`)).rejects.toThrow("fetch failed");
    await barrier.release();
  });

  test("says that an address is taken", async () => {
    const world = await createWorld();
    const server = await onSocket(world);
    const { port } = new URL(server.url);
    await expect(
      listen({ ...world.deps, publicUrl: undefined }, { host: "127.0.0.1", port: Number(port) }),
    ).rejects.toMatchObject({
      code: "CONFIG",
      message: `cannot listen on 127.0.0.1:${port} (EADDRINUSE)`,
    });
  });
});
