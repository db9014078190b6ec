import { describe, expect, test } from "vitest";
import { databaseNameOf, engineOf, withPassword } from "../../src/driver/url.ts";

describe("a database URL", () => {
  test.each([
    ["postgres://h/orders", "postgres", "orders"],
    ["postgresql://u:p@h:5432/orders?sslmode=disable", "postgres", "orders"],
    ["mongodb://h/orders", "mongodb", "orders"],
    ["mongodb://u:p%40@h1:27017,h2:27018,[::1]:27019/orders?replicaSet=a/b", "mongodb", "orders"],
    ["mongodb+srv://u@cluster.example/my%2Dorders", "mongodb", "my-orders"],
    ["MONGODB://h/orders", "mongodb", "orders"],
  ] as const)("%s is of %s and of the database %s", async (url, engine, name) => {
    expect(engineOf(url)).toBe(engine);
    expect(await databaseNameOf(url)).toBe(name);
  });

  test.each(["mysql://u:planted-secret@h/d", "planted-secret", ""])("%j is of no engine", (url) => {
    expect(() => engineOf(url)).toThrow(expect.objectContaining({ code: "USAGE" }));
    expect(() => engineOf(url)).not.toThrow(/planted-secret/);
  });

  test.each(["mongodb://u:planted-secret@h", "mongodb://h/", "mongodb://h/?replicaSet=a"])(
    "%j names no database",
    async (url) => {
      await expect(databaseNameOf(url)).rejects.toMatchObject({
        code: "USAGE",
        message: expect.stringContaining("it names no database"),
      });
    },
  );

  test.each([
    ["mongodb://app@h1:27017,h2/orders?w=1", "mongodb://app:p%40%2F%3A@h1:27017,h2/orders?w=1"],
    ["mongodb+srv://app:old@h/orders", "mongodb+srv://app:p%40%2F%3A@h/orders"],
    ["postgres://app@h/orders", "postgres://app@h/orders?password=p%40%2F%3A"],
    [
      "postgres://app@/orders?host=/cloudsql/p:r:i&sslmode=disable",
      "postgres://app@/orders?host=%2Fcloudsql%2Fp%3Ar%3Ai&sslmode=disable&password=p%40%2F%3A",
    ],
  ])("%s takes a password from elsewhere", (url, whole) => {
    expect(withPassword(url, "p@/:")).toBe(whole);
  });

  test.each([
    ["mongodb://h1,h2/orders?w=1", "mongodb://a%20b:p@h1,h2/orders?w=1"],
    ["mongodb+srv://old:word@h/orders", "mongodb+srv://a%20b:p@h/orders"],
    ["postgres://old:word@h/orders", "postgres://old:word@h/orders?user=a+b&password=p"],
    ["postgres://h/orders?user=old", "postgres://h/orders?user=a+b&password=p"],
  ])("%s takes a user and a password from elsewhere", async (url, whole) => {
    const taken = withPassword(url, "p", "a b");
    expect(taken).toBe(whole);
    if (!url.startsWith("postgres")) return;
    const { parseAddress } = await import("../../src/driver/postgres/address.ts");
    expect(parseAddress(taken)).toMatchObject({ user: "a b", password: "p", host: "h" });
  });

  test("of MongoDB that names no user takes no password", () => {
    expect(() => withPassword("mongodb://h/orders", "planted-secret")).toThrow(
      expect.objectContaining({ code: "USAGE", message: expect.not.stringContaining("planted-secret") }),
    );
  });
});
