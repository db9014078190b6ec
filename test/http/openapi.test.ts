import { describe, expect, test } from "vitest";
import { traits } from "../../src/error.ts";
import { description } from "./described.ts";
import { createWorld } from "./world.ts";

const methods = ["get", "post", "put", "patch", "delete"];

describe("the OpenAPI document", () => {
  test("describes every route, and there is a route for all it describes", async () => {
    const { app } = await createWorld();
    const routes = app.hono.routes
      .filter(({ method }) => method !== "ALL")
      .map(({ method, path }) => `${method.toLowerCase()} ${path.replace(/:([a-z]+)/g, "{$1}")}`);
    const described = Object.entries(description.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method} ${path}`),
    );
    expect(described.toSorted()).toEqual(routes.toSorted());
  });

  test("is served as it is, for the public address", async () => {
    const world = await createWorld();
    const { body } = await world.send("GET", "/openapi.json", { token: null });
    expect(body.openapi).toBe("3.1.0");
    expect(body.info).toMatchObject({ title: "lockkeeper", version: "0.0.0-test" });
    expect(body.servers).toEqual([{ url: "https://migrate.test/base/" }]);
    expect(body.paths).toEqual(description.paths);
  });

  test("refers only to what it holds, and holds only what it refers to", () => {
    const text = JSON.stringify(description);
    const referred = new Set(
      [...text.matchAll(/"#\/components\/schemas\/([A-Za-z]+)"/g)].map(([, name = ""]) => name),
    );
    expect([...referred].toSorted()).toEqual(Object.keys(description.components.schemas).toSorted());
  });

  test("names every error code", () => {
    expect(description.components.schemas["Problem"]).toMatchObject({
      properties: { code: { enum: Object.keys(traits) } },
    });
  });

  test("has an operation id of its own for each operation, and a parameter for each part of a path", () => {
    const operations = Object.entries(description.paths).flatMap(([path, byMethod]) =>
      Object.entries(byMethod).map(([method, operation]) => ({
        path,
        method,
        operation: operation as unknown as {
          operationId: string;
          parameters?: { name: string; in: string; required: boolean }[];
        },
      })),
    );
    expect(new Set(operations.map(({ operation }) => operation.operationId)).size).toBe(operations.length);
    for (const { path, method, operation } of operations) {
      expect(methods).toContain(method);
      const inPath = [...path.matchAll(/\{([a-z]+)\}/g)].map(([, name]) => name);
      const declared = (operation.parameters ?? []).filter((parameter) => parameter.in === "path");
      expect(declared.map(({ name }) => name)).toEqual(inPath);
      expect(declared.every(({ required }) => required)).toBe(true);
    }
  });

  test("says which requests need no token", () => {
    const open = Object.entries(description.paths).filter(
      ([, { get }]) => JSON.stringify((get as unknown as { security?: unknown })?.security) === "[]",
    );
    expect(open.map(([path]) => path)).toEqual([
      "/health/live",
      "/health/ready",
      "/version",
      "/openapi.json",
    ]);
  });
});
