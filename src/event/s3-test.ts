import * as v from "valibot";
import type { Shape } from "./content.ts";

const testSchema = v.looseObject({ Service: v.literal("Amazon S3"), Event: v.literal("s3:TestEvent") });

/** What S3 sends once when a notification is configured, without records. */
export const s3Test: Shape = (payload) =>
  v.is(testSchema, payload) ? { kind: "test", via: "s3" } : undefined;
