import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { type ClientRequest, createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { openSource } from "../../src/source/open.ts";

test("shows Google's own library's token, fetched once for many requests, and asks nobody else", async () => {
  const seen: string[] = [];
  const server = createServer((request, response) => {
    seen.push(`${request.method} ${request.url?.split("?")[0]} ${request.headers.authorization ?? "-"}`);
    response.setHeader("content-type", "application/json");
    const token = { access_token: "a-token", token_type: "Bearer", expires_in: 3_600 };
    const issued = { ...token, issued_token_type: "urn:ietf:params:oauth:token-type:access_token" };
    request.resume().once("end", () => response.end(JSON.stringify(request.url === "/token" ? issued : {})));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  vi.stubEnv("GOOGLE_APPLICATION_CREDENTIALS", await workloadIdentity(`${endpoint}/token`));
  const source = await openSource("gs://bucket/orders", { gcs: { endpoint, anonymous: false } });

  const asked = hostsAsked();
  const { signal } = new AbortController();
  expect(await source.list("", signal)).toEqual([]);
  expect(await source.list("", signal)).toEqual([]);
  expect(seen).toEqual([
    "POST /token -",
    "GET /storage/v1/b/bucket/o Bearer a-token",
    "GET /storage/v1/b/bucket/o Bearer a-token",
  ]);
  // Not the metadata server, nor any of Google's for the project: behind a firewall they never answer.
  expect(asked).toEqual(new Set(["127.0.0.1"]));
});

/** The host of every HTTP request that this process begins from now on. */
function hostsAsked(): ReadonlySet<string> {
  const hosts = new Set<string>();
  const note = (message: unknown) => {
    const { request } = message as { readonly request: ClientRequest };
    hosts.add(request.host);
  };
  subscribe("http.client.request.start", note);
  onTestFinished(() => void unsubscribe("http.client.request.start", note));
  return hosts;
}

/** A workload identity configuration, as a cluster's pod has it: its own token, and where to exchange it. */
async function workloadIdentity(tokenUrl: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "lockkeeper-gcs-"));
  onTestFinished(() => rm(folder, { recursive: true }));
  const subject = join(folder, "token");
  const file = join(folder, "credentials.json");
  await writeFile(subject, "pod-token");
  await writeFile(
    file,
    JSON.stringify({
      type: "external_account",
      audience:
        "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider",
      subject_token_type: "urn:ietf:params:oauth:token-type:jwt",
      token_url: tokenUrl,
      credential_source: { file: subject },
    }),
  );
  return file;
}

test("gives up a token that never comes, and says that the store is not to be had", async () => {
  const server = createServer((request) => void request.resume());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  vi.stubEnv("GOOGLE_APPLICATION_CREDENTIALS", await workloadIdentity(`${endpoint}/token`));
  const patience = { attempts: 2, backoffMs: 1, maxBackoffMs: 1, connectMs: 300, idleMs: 300 };
  const source = await openSource("gs://bucket/orders", { gcs: { endpoint, anonymous: false }, patience });
  await expect(source.list("", new AbortController().signal)).rejects.toMatchObject({
    code: "SOURCE_UNAVAILABLE",
  });
});
