import { readFileSync } from "node:fs";
import path from "node:path";

import { describe, expect, test } from "vitest";

import { decodeEvent } from "../../src/event/decode.ts";
import { parsePolicy } from "../../src/http/auth/policy.ts";

const page = readFileSync(path.join(import.meta.dirname, "../../infra/events.md"), "utf8");
const blocks = [...page.matchAll(/^```json (\w+) ?(\w*)\n([\s\S]*?)^```$/gm)].map(
  ([, kind = "", name = "", text = ""]) => ({
    kind,
    name,
    text,
  }),
);

function block(kind: string, name = ""): string {
  const found = blocks.find((one) => one.kind === kind && one.name === name);
  if (found === undefined) throw new Error(`the page has no block ${kind} ${name}`);
  return found.text;
}

/** Whether a document fits an EventBridge pattern: each list of the pattern names what may be there. */
function fits(pattern: unknown, document: unknown): boolean {
  if (Array.isArray(pattern)) return pattern.includes(document);
  if (typeof pattern !== "object" || pattern === null || typeof document !== "object" || document === null)
    return false;
  return Object.entries(pattern).every(([name, inner]) => fits(inner, Reflect.get(document, name)));
}

describe("infra/events.md", () => {
  test.for([
    ["s3", "s3", "s3"],
    ["eventbridge", "eventbridge", "s3"],
    ["pubsub", "pubsub", "gcs"],
  ] as const)("the payload of %s is an event of orders/head.json", ([name, via, provider]) => {
    const event = { provider, bucket: "releases", key: "orders/head.json" };
    expect(decodeEvent(JSON.parse(block("payload", name)))).toMatchObject({
      kind: "events",
      via,
      events: [event],
    });
  });

  test("the pattern lets the event through, and none of another object", () => {
    const pattern: unknown = JSON.parse(block("pattern"));
    const text = block("payload", "eventbridge");
    expect(fits(pattern, JSON.parse(text))).toBe(true);
    for (const [from, to] of [
      ["orders/head.json", "orders/blobs/sha256/00"],
      ["releases", "others"],
      ["Object Created", "Object Deleted"],
    ] as const)
      expect(fits(pattern, JSON.parse(text.replace(from, to)))).toBe(false);
  });

  test("the policy loads without a warning and lets the push wake, and do nothing else", () => {
    const policy = parsePolicy(block("policy"), new Set(["orders-prod"]));
    expect(policy.warnings).toEqual([]);
    expect(policy.rules.map(({ actions }) => actions)).toEqual([["wake"]]);
  });

  test("links only to pages that there are, and to headings that they have", () => {
    for (const [, file = "", heading = ""] of page.matchAll(/\]\(([a-z-]+\.md)?(#[a-z-]+)?\)/g)) {
      const text =
        file === "" ? page : readFileSync(path.join(import.meta.dirname, "../../infra", file), "utf8");
      const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(
        ([, title = ""]) =>
          `#${title
            .toLowerCase()
            .replace(/[^a-z0-9 -]/g, "")
            .replaceAll(" ", "-")}`,
      );
      if (heading !== "") expect(anchors).toContain(heading);
    }
  });
});
