import * as v from "valibot";

/** What the floor scene writes into the results. */
export const FloorLine = v.object({
  kind: v.literal("floor-bare"),
  what: v.picklist(["node", "connect", "ask", "ask far", "tables", "get", "query", "commit"]),
  /** median of the round where one is too short to be timed alone */
  ms: v.number(),
});

/** One bare measurement. */
export type FloorLine = v.InferOutput<typeof FloorLine>;
