import { createHash } from "node:crypto";
import * as v from "valibot";
import { RunnerError } from "../error.ts";
import type { HttpContext, HttpParts } from "./context.ts";
import { wordsOf } from "./issue.ts";
import { parseStrictJson } from "./json.ts";
import { readCapped } from "./read-capped.ts";

/** A request's body, checked, with the digest of its bytes. */
export interface ReadBody<T> {
  readonly value: T;
  /** `sha256:<hex>` */
  readonly digest: string;
}

/**
 * Reads a JSON body of a closed schema.
 *
 * @throws RunnerError `UNSUPPORTED_MEDIA_TYPE` — not JSON by its header, or compressed; `BODY_TOO_LARGE`; `INVALID_REQUEST` — naming each field
 */
export async function readBody<Schema extends v.GenericSchema>(
  c: HttpContext,
  parts: HttpParts,
  schema: Schema,
): Promise<ReadBody<v.InferOutput<Schema>>> {
  const type = c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new RunnerError("UNSUPPORTED_MEDIA_TYPE", "the body has to be JSON", {
      hint: "send Content-Type: application/json",
    });
  }
  if (c.req.header("content-encoding") !== undefined) {
    throw new RunnerError("UNSUPPORTED_MEDIA_TYPE", "a compressed body is not taken", {
      hint: "send it without Content-Encoding",
    });
  }
  const { bodyBytes } = parts.limits;
  // Whole where its length is known beforehand: as a stream it costs several times as much.
  const isShort = Number(c.req.header("content-length")) <= bodyBytes;
  const whole = isShort ? Buffer.from(await c.req.raw.arrayBuffer()) : undefined;
  const bytes = whole ?? (await readCapped(c.req.raw.body, bodyBytes));
  if (bytes === undefined || bytes.length > bodyBytes)
    throw new RunnerError("BODY_TOO_LARGE", `the body is larger than ${bodyBytes} bytes`);
  const value = parseBody(bytes, parts, schema);
  return { value, digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}` };
}

/**
 * JSON of a closed schema.
 *
 * @throws RunnerError `INVALID_REQUEST` — naming each field
 */
export function parseBody<Schema extends v.GenericSchema>(
  bytes: Buffer,
  { limits }: Pick<HttpParts, "limits">,
  schema: Schema,
): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, parse(bytes, limits.jsonDepth));
  if (!parsed.success) throw invalid(wordsOf(parsed.issues));
  return parsed.output;
}

/**
 * Reads the query of a closed schema; a parameter may be there once.
 *
 * @throws RunnerError `INVALID_REQUEST`
 */
export function readQuery<Schema extends v.GenericSchema>(
  c: HttpContext,
  schema: Schema,
): v.InferOutput<Schema> {
  const given = c.req.queries();
  const twice = Object.keys(given).find((name) => given[name]?.length !== 1);
  if (twice !== undefined) throw invalid([`?${twice.slice(0, 60)}: is there more than once`]);
  const parsed = v.safeParse(schema, c.req.query());
  if (!parsed.success) throw invalid(wordsOf(parsed.issues).map((word) => word.replace(/^\//, "?")));
  return parsed.output;
}

/** A whole number in a query, from `min` to `max`. */
export function wholeNumber(min: number, max: number) {
  return v.pipe(
    v.string(),
    v.regex(/^[0-9]{1,9}$/, `has to be a whole number from ${min} to ${max}`),
    v.transform(Number),
    v.minValue(min, `has to be at least ${min}`),
    v.maxValue(max, `has to be at most ${max}`),
  );
}

function invalid(problems: readonly string[]): RunnerError {
  return new RunnerError("INVALID_REQUEST", `the request is not valid: ${problems.slice(0, 10).join("; ")}`, {
    hint: "GET /openapi.json describes every request",
    fields: { problems: problems.length },
  });
}

function parse(bytes: Buffer, maxDepth: number): unknown {
  try {
    return parseStrictJson(
      new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes),
      maxDepth,
    );
  } catch (error) {
    throw invalid([`/: ${error instanceof SyntaxError ? error.message : "not UTF-8"}`]);
  }
}
