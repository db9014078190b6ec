import * as v from "valibot";

import { RunnerError } from "../error.ts";
import { releaseLimits } from "./limits.ts";
import { check, count, digestText } from "./schema.ts";
import { parseStrictJson } from "./strict-json.ts";

/** What `head.json` says. Nobody signed it: it may point, and never prove. */
export interface Head {
  readonly epoch: number;
  readonly version: number;
  /** `sha256:<hex>` of the release's statement */
  readonly digest: string;
}

/** The bytes of `head.json`. */
export function writeHead({ epoch, version, digest }: Head): Buffer {
  return Buffer.from(`${JSON.stringify({ epoch, version, digest })}\n`);
}

/**
 * Bytes of `head.json` → where it points.
 *
 * @throws RunnerError `TOO_LARGE`, `JSON_…`, `SCHEMA`
 */
export function readHead(bytes: Uint8Array): Head {
  const what = "head.json";
  return check(headSchema, parseStrictJson(bytes, what, releaseLimits.headBytes), what);
}

/** For whoever needs a release that is there. */
export function nothingPublished(url: string): RunnerError {
  return new RunnerError("RELEASE_NOT_FOUND", `no release is published under ${url}`, {
    hint: "check the prefix, or publish; lockkeeper sign shows what waits for signatures; plain files are taken only with --unsigned",
  });
}

const headSchema = v.strictObject({ epoch: count(1), version: count(1), digest: digestText });
