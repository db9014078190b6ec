import {
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  type JSONWebKeySet,
  type JWTVerifyGetKey,
} from "jose";
import * as v from "valibot";
import { RunnerError } from "../../error.ts";
import { parseStrictJson } from "../json.ts";
import { readCapped } from "../read-capped.ts";

const jwksBytes = 256 * 1024;
const jwksTimeoutMs = 5_000;
/** milliseconds in which an address that gave no keys is left alone: whoever knows an issuer's name can have it asked */
const failedMs = 5_000;

/**
 * Keys fetched from an issuer's `jwksUri`: cached 10 minutes, asked again for an unknown key at most every 30 s, and after
 * a failure not for 5 s.
 */
export function fetchedKeys(uri: string): JWTVerifyGetKey {
  return createRemoteJWKSet(new URL(uri), {
    timeoutDuration: jwksTimeoutMs,
    cooldownDuration: 30_000,
    cacheMaxAge: 600_000,
    [customFetch]: pausing(fetchCapped),
  });
}

/** As `fetch`, but for a while after a failure it fails without asking. The library keeps a pause only after a success. */
function pausing(fetch: typeof fetchCapped): typeof fetchCapped {
  let failedAt = -Infinity;
  return async (url, init) => {
    if (performance.now() - failedAt < failedMs) throw new Error("the key set could not be had just now");
    try {
      return await fetch(url, init);
    } catch (error) {
      failedAt = performance.now();
      throw error;
    }
  };
}

const keySetSchema = v.object({
  keys: v.pipe(
    v.array(
      v.pipe(
        v.looseObject({
          kty: v.picklist(["RSA", "EC", "OKP"], "keys are RSA, EC or OKP; a shared secret is none"),
        }),
        v.check((key) => !("d" in key) && !("k" in key), "holds a private key"),
      ),
    ),
    v.minLength(1, "holds no key"),
  ),
});

/**
 * Keys pinned by a JWKS file.
 *
 * @throws RunnerError `CONFIG` — when it is no set of public keys
 */
export function pinnedKeys(jwks: string, fileName: string): JWTVerifyGetKey {
  try {
    const keys: JSONWebKeySet = v.parse(keySetSchema, parseStrictJson(jwks, 8));
    return createLocalJWKSet(keys);
  } catch (cause) {
    const reason =
      cause instanceof v.ValiError || cause instanceof SyntaxError ? cause.message : "not a key set";
    throw new RunnerError("CONFIG", `the key set "${fileName}" cannot be used: ${reason}`, {
      hint: "give the issuer's public JWKS document",
      cause,
    });
  }
}

/**
 * `fetch` that reads at most 256 KiB; redirects are not followed, so the host stays the configured one. Its connection is
 * not kept: the next time is minutes away, and a process may have been frozen meanwhile.
 */
export async function fetchCapped(url: string, init: RequestInit): Promise<Response> {
  const headers = new Headers(init.headers);
  headers.set("connection", "close");
  const response = await fetch(url, { ...init, headers, redirect: "manual" });
  if (response.status !== 200 || response.body === null) {
    await response.body?.cancel();
    throw new Error(`the key set answered ${response.status}`);
  }
  const bytes = await readCapped(response.body, jwksBytes);
  if (bytes === undefined) throw new Error(`the key set is larger than ${jwksBytes} bytes`);
  if (!isKeySet(bytes)) throw new Error("the key set is none");
  return new Response(new Uint8Array(bytes), {
    status: 200,
    headers: { "content-type": "application/json" },
  });
}

function isKeySet(bytes: Buffer): boolean {
  try {
    return v.is(v.object({ keys: v.array(v.looseObject({})) }), JSON.parse(bytes.toString()));
  } catch {
    return false;
  }
}
