import { describe, expect, test } from "vitest";
import { parseTraceParent } from "../../src/run/trace-parent.ts";

const traceId = "4bf92f3577b34da6a3ce929d0e0e4736";
const spanId = "00f067aa0ba902b7";

describe("a traceparent", () => {
  test.for([
    [`00-${traceId}-${spanId}-01`, true],
    [`00-${traceId}-${spanId}-00`, false],
    [`00-${traceId}-${spanId}-03`, true],
    // a later version may have more behind it
    [`cc-${traceId}-${spanId}-01-what-comes-later`, true],
  ] as const)("%s says where something belongs", ([text, isSampled]) => {
    expect(parseTraceParent(text)).toEqual({ traceId, spanId, isSampled });
  });

  test.for([
    undefined,
    "",
    "rubbish",
    `ff-${traceId}-${spanId}-01`,
    `00-${"0".repeat(32)}-${spanId}-01`,
    `00-${traceId}-${"0".repeat(16)}-01`,
    `00-${traceId.toUpperCase()}-${spanId}-01`,
    `00-${traceId}-${spanId}-01-more`,
    `00-${traceId}-${spanId}`,
    ` 00-${traceId}-${spanId}-01`,
    `00-${traceId}-${spanId}-01\nx`,
  ])("is none, and is ignored: %j", (text) => {
    expect(parseTraceParent(text)).toBeUndefined();
  });
});
