import { createHash, createHmac } from "node:crypto";
import { afterEach, describe, expect, test, vi } from "vitest";
import { rdsRoots } from "../../src/host/rds-roots.ts";
import { rdsTokens, regionOfRds } from "../../src/host/rds-token.ts";

afterEach(() => void vi.unstubAllEnvs());

const secretKey = "not/a/real+secretKeyOfAnybody0000000000";
const host = "orders.cluster-c0ffee.eu-central-1.rds.amazonaws.com";

function withCredentials(sessionToken?: string): void {
  vi.stubEnv("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE");
  vi.stubEnv("AWS_SECRET_ACCESS_KEY", secretKey);
  vi.stubEnv("AWS_SESSION_TOKEN", sessionToken);
}

describe("a token of RDS", () => {
  test.for([
    ["of a user's key", undefined],
    ["of a role", "IQoJb3JpZ2luX2VjE+/=="],
  ])("%s is a request to connect, signed as Signature Version 4 says", async ([, sessionToken]) => {
    withCredentials(sessionToken);
    const token = await rdsTokens(undefined)({ host, port: 5433, user: "lockkeeper runner" });

    // A second implementation, by AWS's documentation of query-string signing alone.
    const url = new URL(`https://${token}`);
    const asked = new Map(url.searchParams);
    const signature = asked.get("X-Amz-Signature");
    asked.delete("X-Amz-Signature");
    const at = asked.get("X-Amz-Date") ?? "";
    const scope = `${at.slice(0, 8)}/eu-central-1/rds-db/aws4_request`;
    expect(Object.fromEntries(asked)).toEqual({
      Action: "connect",
      DBUser: "lockkeeper runner",
      "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
      "X-Amz-Credential": `AKIAIOSFODNN7EXAMPLE/${scope}`,
      "X-Amz-Date": expect.stringMatching(/^\d{8}T\d{6}Z$/),
      "X-Amz-Expires": "900",
      "X-Amz-SignedHeaders": "host",
      ...(sessionToken === undefined ? {} : { "X-Amz-Security-Token": sessionToken }),
    });
    const query = [...asked]
      .map(([name, value]) => `${encoded(name)}=${encoded(value)}`)
      .toSorted()
      .join("&");
    const request = ["GET", "/", query, `host:${host}:5433`, "", "host", sha256("")].join("\n");
    const text = ["AWS4-HMAC-SHA256", at, scope, sha256(request)].join("\n");
    const key = [at.slice(0, 8), "eu-central-1", "rds-db", "aws4_request"].reduce<string | Buffer>(
      (last, part) => createHmac("sha256", last).update(part).digest(),
      `AWS4${secretKey}`,
    );
    expect(signature).toBe(createHmac("sha256", key).update(text).digest("hex"));
    expect(url.host).toBe(`${host}:5433`);
    expect(token.startsWith("https:")).toBe(false);
  });

  test("is for the region that the endpoint's name says, and only else for the process's", async () => {
    withCredentials();
    const make = rdsTokens("us-west-2");
    const regionIn = async (name: string): Promise<string | undefined> =>
      decodeURIComponent(await make({ host: name, port: 5432, user: "u" })).split("/")[3];
    expect(await regionIn(host)).toBe("eu-central-1");
    expect(await regionIn("db.internal")).toBe("us-west-2");
    await expect(rdsTokens(undefined)({ host: "db.internal", port: 5432, user: "u" })).rejects.toMatchObject({
      code: "CONFIG",
      hint: expect.stringContaining("iamHost"),
    });
  });

  test.for([
    ["orders.c0ffee.eu-west-1.rds.amazonaws.com", "eu-west-1"],
    ["orders.proxy-c0ffee.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"],
    ["orders.c0ffee.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"],
    ["orders.c0ffee.ap-southeast-2.rds.amazonaws.com.evil.example", undefined],
    ["rds.amazonaws.com", undefined],
    ["127.0.0.1", undefined],
  ] as const)("of %s is for %s", ([name, region]) => {
    expect(regionOfRds(name)).toBe(region);
  });

  test("without credentials is refused with what to do", async () => {
    for (const name of ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"])
      vi.stubEnv(name, undefined);
    vi.stubEnv("AWS_EC2_METADATA_DISABLED", "true");
    vi.stubEnv("AWS_CONFIG_FILE", "/nowhere");
    vi.stubEnv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere");
    await expect(rdsTokens(undefined)({ host, port: 5432, user: "u" })).rejects.toMatchObject({
      code: "DATABASE_UNAVAILABLE",
      hint: expect.stringContaining("role"),
    });
  });
});

describe("the authorities of RDS", () => {
  test("are certificates of every region and of RDS Proxy's issuer, each once", async () => {
    const roots = await rdsRoots();
    expect(roots.length).toBeGreaterThan(100);
    expect(new Set(roots).size).toBe(roots.length);
    for (const root of roots)
      expect(root).toMatch(/^-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]+-----END CERTIFICATE-----/);
  });
});

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** RFC 3986's unreserved characters stay. */
function encoded(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()*]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}
