import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { parseHeader, webhookBackup } from "../../src/hook/webhook.ts";

const facts = {
  run: "t.01",
  target: "t",
  stream: "orders",
  environment: "default",
  release: "sha256:00",
  from: null,
  to: "3",
};
const never = new AbortController().signal;

interface Asked {
  readonly method: string | undefined;
  readonly url: string | undefined;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** A service that answers as told, request after request. */
async function service(
  ...answers: readonly ((response: ServerResponse) => void)[]
): Promise<{ readonly url: string; readonly asked: Asked[] }> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (bytes: Buffer) => (body += bytes.toString()));
    request.on("end", () => {
      const { method, url, headers } = request;
      const answer = answers[asked.length];
      asked.push({ method, url, headers, body });
      answer?.(response);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

const status =
  (code: number, headers: Record<string, string> = {}) =>
  (response: ServerResponse): void =>
    void response.writeHead(code, headers).end("x".repeat(100_000));

const make = (url: string, signal = never): Promise<void> =>
  webhookBackup(url, {
    timeoutMs: 0,
    header: () => Promise.resolve(["authorization", "Bearer s3cret"]),
  }).make(facts, signal, () => undefined);

describe("a backup's webhook", () => {
  test("gets the run's facts and the secret header by POST, and 2xx says that it is done", async () => {
    const { url, asked } = await service(status(204));
    await make(`${url}/backup?db=1`);
    expect(asked).toMatchObject([
      {
        method: "POST",
        url: "/backup?db=1",
        headers: {
          authorization: "Bearer s3cret",
          "content-type": "application/json",
          "idempotency-key": "t.01",
        },
      },
    ]);
    expect(JSON.parse(asked[0]?.body ?? "")).toEqual({ schema: "urn:lockkeeper:backup:v1", ...facts });
  });

  test("that answers 202 is asked at its Location until it is done", async () => {
    const goesOn = status(202, { location: "/backup/7", "retry-after": "1" });
    const { url, asked } = await service(goesOn, goesOn, status(200));
    await make(url);
    expect(asked.map((request) => [request.method, request.url, request.headers.authorization])).toEqual([
      ["POST", "/", "Bearer s3cret"],
      ["GET", "/backup/7", "Bearer s3cret"],
      ["GET", "/backup/7", "Bearer s3cret"],
    ]);
  });

  test.for([
    ["500", status(500), "500"],
    ["404", status(404), "404"],
    ["a redirect", status(302, { location: "http://169.254.169.254/" }), "a redirect"],
    ["a redirect to itself", status(307, { location: "/other" }), "a redirect"],
    ["202 without a Location", status(202), "without a Location"],
    ["202 that leads elsewhere", status(202, { location: "https://elsewhere.example/" }), "another place"],
    [
      "a connection that ends",
      (response: ServerResponse): void => void response.destroy(),
      "cannot be reached",
    ],
  ] as const)("fails with %s, and asks nobody else", async ([, answer, words]) => {
    const { url, asked } = await service(answer);
    await expect(make(url)).rejects.toMatchObject({
      code: "BACKUP_FAILED",
      message: expect.stringContaining(words) as string,
    });
    expect(asked).toHaveLength(1);
  });

  test("that does not answer, or goes on for ever, is left when the run is to stop", async () => {
    for (const answer of [() => undefined, status(202, { location: "/", "retry-after": "60" })]) {
      const { url, asked } = await service(answer);
      const control = new AbortController();
      const made = make(url, control.signal);
      await expect.poll(() => asked, { timeout: 20_000 }).toHaveLength(1);
      control.abort(new Error("stop"));
      await expect(made).rejects.toThrow("stop");
    }
  });

  test("is https, http only on this machine, without a password, and is named by its origin alone", () => {
    const open = (url: string) => webhookBackup(url, { timeoutMs: 0 });
    for (const url of ["http://backup.example/", "ftp://127.0.0.1/", "backup", "https://u:p@backup.example/"])
      expect(() => open(url)).toThrow(expect.objectContaining({ code: "CONFIG" }));
    expect(open("https://backup.example/hooks/T0KEN?key=s3cret").by).toBe("webhook https://backup.example");
  });

  test("takes one header from its file", () => {
    expect(parseHeader("Authorization: Bearer a b\n")).toEqual(["Authorization", "Bearer a b"]);
    for (const text of ["", "Bearer x", "A: b\nC: d", "A: b\r\nC: d", "A b: c"])
      expect(parseHeader(text)).toBeUndefined();
  });
});
