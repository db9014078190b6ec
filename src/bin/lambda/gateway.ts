import { isUtf8 } from "node:buffer";
import * as v from "valibot";
import { RunnerError } from "../../error.ts";

/** An HTTP request as one of AWS's gateways hands it to a function, and the form in which that one takes the answer. */
export interface Gateway {
  /** who called, as the gateway saw it; undefined where it does not say */
  readonly sourceIp: string | undefined;
  /** where callers reach it, as far as it says so itself: a load balancer repeats only what callers wrote */
  readonly publicUrl: string | undefined;
  /**
   * The request, its path below the public address.
   *
   * @param publicUrl - its path is taken away where the gateway left it on, as stages and custom domains do
   * @throws RunnerError `INVALID_REQUEST` - no HTTP client could have sent it
   */
  request(publicUrl: string): Request;
  answer(response: Response): Promise<GatewayAnswer>;
}

/** What a function returns. */
export interface GatewayAnswer {
  readonly statusCode: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly multiValueHeaders?: Readonly<Record<string, readonly string[]>>;
  readonly cookies?: readonly string[];
  readonly body: string;
  readonly isBase64Encoded: boolean;
}

/**
 * Reads the events of Function URLs and HTTP APIs (payload 2.0), of REST APIs (and payload 1.0) and of load balancers.
 * Undefined for whatever is none of them.
 */
export function gatewayOf(event: unknown): Gateway | undefined {
  const second = v.safeParse(secondSchema, event);
  if (second.success) return gatewayOf2(second.output);
  const first = v.safeParse(firstSchema, event);
  return first.success ? gatewayOf1(first.output) : undefined;
}

const text = v.optional(v.string());
const body = { body: v.nullish(v.string()), isBase64Encoded: v.nullish(v.boolean(), false) };
const lists = v.nullish(v.record(v.string(), v.array(v.string())));
const values = v.nullish(v.record(v.string(), v.string()));

const secondSchema = v.object({
  version: v.literal("2.0"),
  rawPath: v.string(),
  rawQueryString: v.nullish(v.string(), ""),
  headers: values,
  cookies: v.nullish(v.array(v.string()), []),
  ...body,
  requestContext: v.object({
    domainName: text,
    stage: text,
    http: v.object({ method: v.string(), sourceIp: text }),
  }),
});

const firstSchema = v.object({
  httpMethod: v.string(),
  path: v.string(),
  headers: values,
  multiValueHeaders: lists,
  queryStringParameters: values,
  multiValueQueryStringParameters: lists,
  ...body,
  requestContext: v.object({
    elb: v.optional(v.unknown()),
    domainName: text,
    path: text,
    identity: v.optional(v.object({ sourceIp: text })),
  }),
});

function gatewayOf2(event: v.InferOutput<typeof secondSchema>): Gateway {
  const { rawPath, requestContext, cookies } = event;
  const { domainName, stage, http } = requestContext;
  // A stage of its own name is part of the address that AWS gives it, and stays in the path.
  const ofStage =
    stage !== undefined && stage !== "$default" && isBelow(rawPath, `/${stage}`) ? `/${stage}` : "";
  return {
    sourceIp: http.sourceIp,
    publicUrl: domainName === undefined ? undefined : `https://${domainName}${ofStage}`,
    request: (publicUrl) =>
      requestOf({
        method: http.method,
        path: below(rawPath, pathOf(publicUrl)) ?? below(rawPath, ofStage) ?? rawPath,
        query: event.rawQueryString,
        headers: [
          ...Object.entries(event.headers ?? {}),
          ...(cookies.length === 0 ? [] : [["cookie", cookies.join("; ")] as const]),
        ],
        body: bytesOf(event),
      }),
    async answer(response) {
      const { "set-cookie": _, ...headers } = Object.fromEntries(response.headers);
      const set = response.headers.getSetCookie();
      return {
        statusCode: response.status,
        headers,
        ...(set.length === 0 ? {} : { cookies: set }),
        ...(await contentOf(response)),
      };
    },
  };
}

function gatewayOf1(event: v.InferOutput<typeof firstSchema>): Gateway {
  const { httpMethod, path, requestContext, multiValueHeaders } = event;
  const { elb, domainName, identity } = requestContext;
  const headers = pairsOf(multiValueHeaders, event.headers);
  const whole = requestContext.path ?? path;
  const ofStage = whole.endsWith(path) ? whole.slice(0, -path.length) : "";
  const parameters = pairsOf(event.multiValueQueryStringParameters, event.queryStringParameters);
  return {
    // a load balancer adds the address that it saw as the last one
    sourceIp: elb === undefined ? identity?.sourceIp : lastForwarded(headers),
    publicUrl: elb !== undefined || domainName === undefined ? undefined : `https://${domainName}${ofStage}`,
    request: (publicUrl) =>
      requestOf({
        method: httpMethod,
        path: below(path, pathOf(publicUrl)) ?? path,
        // An API decodes what stands in the query, a load balancer leaves it as it came.
        query:
          elb === undefined
            ? new URLSearchParams(
                parameters.map(([name, value]): [string, string] => [name, value]),
              ).toString()
            : parameters.map(([name, value]) => `${name}=${value}`).join("&"),
        headers,
        body: bytesOf(event),
      }),
    async answer(response) {
      const content = await contentOf(response);
      const statusCode = response.status;
      const isOfLists = elb === undefined || (multiValueHeaders !== null && multiValueHeaders !== undefined);
      if (!isOfLists) return { statusCode, headers: Object.fromEntries(response.headers), ...content };
      const lists: Record<string, string[]> = {};
      for (const [name, value] of response.headers) (lists[name] ??= []).push(value);
      return { statusCode, multiValueHeaders: lists, ...content };
    },
  };
}

type Pairs = readonly (readonly [name: string, value: string])[];

function pairsOf(
  several: Readonly<Record<string, readonly string[]>> | null | undefined,
  single: Readonly<Record<string, string>> | null | undefined,
): Pairs {
  if (several === null || several === undefined) return Object.entries(single ?? {});
  return Object.entries(several).flatMap(([name, all]) => all.map((value) => [name, value] as const));
}

function requestOf(parts: {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly headers: Pairs;
  readonly body: Buffer<ArrayBuffer> | undefined;
}): Request {
  // Links are made from the configuration: this name is nobody's.
  const url = new URL("https://lambda.invalid");
  url.pathname = parts.path;
  url.search = parts.query;
  const { method } = parts;
  const hasBody = parts.body !== undefined && method !== "GET" && method !== "HEAD";
  try {
    return new Request(url, {
      method,
      headers: parts.headers.map(([name, value]): [string, string] => [name, value]),
      ...(hasBody ? { body: parts.body } : {}),
    });
  } catch (cause) {
    throw new RunnerError("INVALID_REQUEST", "the method or a header is none of HTTP", { cause });
  }
}

function bytesOf({
  body: content,
  isBase64Encoded,
}: {
  readonly body?: string | null | undefined;
  readonly isBase64Encoded: boolean;
}): Buffer<ArrayBuffer> | undefined {
  if (content === null || content === undefined) return undefined;
  return Buffer.from(content, isBase64Encoded ? "base64" : "utf8");
}

async function contentOf(response: Response): Promise<Pick<GatewayAnswer, "body" | "isBase64Encoded">> {
  const bytes = Buffer.from(await response.arrayBuffer());
  const isText = isUtf8(bytes);
  return { body: bytes.toString(isText ? "utf8" : "base64"), isBase64Encoded: !isText };
}

function lastForwarded(headers: Pairs): string | undefined {
  const all = headers.filter(([name]) => name.toLowerCase() === "x-forwarded-for").map(([, value]) => value);
  const last = all.join(",").split(",").at(-1)?.trim();
  return last === "" ? undefined : last;
}

function pathOf(publicUrl: string): string {
  return new URL(publicUrl).pathname.replace(/\/+$/, "");
}

/** What of a path follows a prefix; undefined where it is not below one. */
function below(path: string, prefix: string): string | undefined {
  if (prefix === "" || !isBelow(path, prefix)) return undefined;
  return path === prefix ? "/" : path.slice(prefix.length);
}

function isBelow(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(`${prefix}/`);
}
