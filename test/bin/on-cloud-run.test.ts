import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { folderWith, run, start } from "./program.ts";

const policy = {
  schema: "urn:lockkeeper:policy:v1",
  audience: "https://lockkeeper.example",
  issuers: { ci: { issuer: "https://ci.example", jwksFile: "jwks.json", algs: ["ES256"] } },
  rules: [
    { id: "r", issuer: "ci", match: { sub: "ci" }, allow: { targets: ["orders"], actions: ["status"] } },
  ],
};

/** A folder that the server starts in, with more lines of its configuration. */
function folderFor(lines = ""): Promise<string> {
  return folderWith({
    "policy.json": JSON.stringify(policy),
    "jwks.json":
      '{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}',
    "key.pub":
      "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEf83OJ3D2xF1Bg8vub9tLe1gHMzV7\n6e8Tus9uPHvRVEXH8UTNG72bfocs3+257rn0s2ldbqkLJK2KRiMohYjlrQ==\n-----END PUBLIC KEY-----\n",
    "lockkeeper.yaml": `version: 1
publicUrl: https://lockkeeper.example
policy: policy.json
${lines}
trust: { t: { keys: [key.pub] } }
targets:
  orders: { engine: postgres, stream: orders, source: ./r, trust: t, database: { url: "postgres://u@127.0.0.1:9/d" } }
`,
  });
}

describe("a server on Cloud Run", { timeout: 120_000 }, () => {
  test("listens on every interface of its container, on the port of PORT, where nothing else says where", async () => {
    // Somebody has the port already, so that nothing of ours is open to the network.
    const other = createServer().listen(0, "127.0.0.1");
    onTestFinished(() => void other.close());
    await once(other, "listening");
    const { port } = other.address() as AddressInfo;
    const folder = await folderFor();
    const taken = await run(["serve"], folder, { PORT: String(port) });
    expect(taken).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(`cannot listen on 0.0.0.0:${port}`),
    });
    const wrong = await run(["serve"], folder, { PORT: "70000" });
    expect(wrong).toMatchObject({ code: 2, stderr: expect.stringContaining("PORT is no port") });
  });

  test("is told of the processor that it loses with its answers, unless a job does the work", async () => {
    const started = async (lines: string): Promise<string> => {
      const folder = await folderFor(`listen: 127.0.0.1:0\n${lines}`);
      const server = start(["serve"], folder, { PORT: "1", K_SERVICE: "lockkeeper" });
      const said = (): string => server.said().stdout + server.said().stderr;
      await expect.poll(said, { timeout: 60_000 }).toContain("server.started");
      server.child.kill("SIGTERM");
      expect(await server.ended).toBe(0);
      return said();
    };
    const job = "projects/p/locations/europe-west1/jobs/work";
    const [alone, withJob] = await Promise.all([started(""), started(`work: { cloudRunJob: ${job} }`)]);
    expect(alone).toContain("work.cloudRunJob");
    expect(withJob).not.toContain("work.cloudRunJob");
  });
});
