import { describe, expect, test } from "vitest";
import { RunnerError, toRunnerError, traits, type RunnerErrorCode } from "../../src/error.ts";
import { problemOf, problemResponse } from "../../src/http/problem.ts";
import { description, differences } from "./described.ts";

const codes = Object.keys(traits) as RunnerErrorCode[];

describe("a problem", () => {
  test("is made of every error code, as the description says", () => {
    for (const code of codes) {
      const problem = problemOf(
        new RunnerError(code, "what happened", {
          hint: "what to do",
          fields: { line: 1, ok: true, none: null },
        }),
      );
      expect(differences(description.components.schemas["Problem"] ?? {}, problem, "")).toEqual([]);
      expect(problem.type).toBe(`urn:lockkeeper:problem:${code.toLowerCase().replaceAll("_", "-")}`);
      expect(problem.status).toBe(traits[code].http);
      expect(problem.retryable).toBe(traits[code].retry);
    }
  });

  test("carries message, hint and fields to the caller", () => {
    const problem = problemOf(
      new RunnerError("HELD", "the stream is held", { hint: "ask", fields: { version: "7" } }),
      { target: "orders", run: "r" },
    );
    expect(problem).toEqual({
      type: "urn:lockkeeper:problem:held",
      title: "Held",
      status: 409,
      code: "HELD",
      retryable: false,
      detail: "the stream is held",
      hint: "ask",
      fields: { version: "7" },
      target: "orders",
      run: "r",
    });
  });

  test("of the server's own fault says nothing but its code", () => {
    for (const code of codes.filter((candidate) => traits[candidate].http === 500)) {
      const text = JSON.stringify(
        problemOf(
          new RunnerError(code, "/etc/keys/alice.pem", {
            hint: "secret",
            fields: { path: "secret" },
            cause: new Error("secret"),
          }),
        ),
      );
      expect(text).not.toMatch(/secret|alice/);
    }
    expect(JSON.stringify(problemOf(toRunnerError(new TypeError("secret"))))).not.toContain("secret");
  });

  test("says when to come back where that makes sense", () => {
    const header = (error: RunnerError, name: string): string | null =>
      problemResponse(problemOf(error)).headers.get(name);
    expect(header(new RunnerError("DATABASE_UNAVAILABLE", "x"), "retry-after")).toBe("5");
    expect(header(new RunnerError("DATABASE_DENIED", "x"), "retry-after")).toBeNull();
    expect(
      header(new RunnerError("RATE_LIMITED", "x", { fields: { retryAfterSeconds: 90 } }), "retry-after"),
    ).toBe("90");
    expect(header(new RunnerError("UNAUTHENTICATED", "x"), "www-authenticate")).toBe(
      'Bearer realm="lockkeeper"',
    );
    expect(header(new RunnerError("UNAUTHENTICATED", "x"), "content-type")).toBe("application/problem+json");
  });
});
