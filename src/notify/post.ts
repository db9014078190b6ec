import { UndeliveredError } from "./channel.ts";

/** milliseconds for one answer */
const answerMs = 10_000;
/** of an answer that is read at all */
const maxAnswerBytes = 256 * 1024;
/** milliseconds that a receiver may ask us to wait */
const longestWaitMs = 300_000;

/**
 * Posts JSON, and gives what is answered as text. No redirect is followed: what is sent is for this receiver only.
 *
 * @throws UndeliveredError
 */
export async function post(
  url: URL,
  { headers, body }: { readonly headers: Readonly<Record<string, string>>; readonly body: string },
  signal: AbortSignal,
): Promise<string> {
  let response: Response;
  try {
    response = await fetch(url, {
      method: "POST",
      headers: { "user-agent": "lockkeeper", "content-type": "application/json", ...headers },
      body,
      redirect: "manual",
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerMs)]),
    });
  } catch (cause) {
    throw new UndeliveredError(reasonOf(cause), { cause });
  }
  const { status } = response;
  if (!response.ok) {
    // What it says is not for us, and may be long.
    await response.body?.cancel().catch(() => undefined);
    const mayPass = status >= 500 || status === 408 || status === 425 || status === 429;
    const retryAfterMs = waitIn(response.headers.get("retry-after"));
    throw new UndeliveredError(`answered ${status}`, { isFinal: !mayPass, retryAfterMs });
  }
  return readSome(response);
}

async function readSome(response: Response): Promise<string> {
  const body: AsyncIterable<Uint8Array> | null = response.body;
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  try {
    for await (const chunk of body ?? []) {
      bytes += chunk.length;
      if (bytes > maxAnswerBytes) break;
      chunks.push(chunk);
    }
  } catch {
    // It has taken what was sent; only its words are lost.
  }
  return Buffer.concat(chunks).toString();
}

function waitIn(retryAfter: string | null): number {
  return /^\d{1,6}$/.test(retryAfter ?? "") ? Math.min(Number(retryAfter) * 1000, longestWaitMs) : 0;
}

function reasonOf(cause: unknown): string {
  if (cause instanceof Error && cause.name === "TimeoutError")
    return `gave no answer within ${answerMs / 1000} s`;
  const inner = cause instanceof Error ? cause.cause : undefined;
  const code = inner instanceof Error && "code" in inner ? ` (${String(inner.code)})` : "";
  return `cannot be reached${code}`;
}
