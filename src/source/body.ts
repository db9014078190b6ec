import type { FileHandle } from "node:fs/promises";
import type { Readable } from "node:stream";
import { RunnerError } from "../error.ts";
import { GrowingBytes } from "../growing-bytes.ts";

/** Which body, for its ceiling and for messages. */
export interface ExpectedBody {
  readonly source: string;
  readonly key: string;
  readonly maxBytes: number;
  /** what the store announced, if it did */
  readonly size: number | undefined;
}

/**
 * Collects a body, never more than `maxBytes` of it. Closes the stream whatever happens.
 *
 * @throws RunnerError `TOO_LARGE` — announced or found to be over the ceiling
 * @throws RunnerError `TRUNCATED` — shorter or longer than announced
 * @throws unknown what the stream itself failed with, for the caller to name
 */
export async function collectBody(stream: Readable, expected: ExpectedBody): Promise<Buffer> {
  if (expected.size !== undefined && expected.size > expected.maxBytes) {
    stream.destroy();
    throw tooLarge(expected, expected.size);
  }
  const bytes = new GrowingBytes(expected.size ?? expected.maxBytes, expected.size);
  // Leaving the loop early destroys the stream.
  for await (const chunk of stream) {
    if (!Buffer.isBuffer(chunk)) throw new TypeError("a source's body is not a byte stream");
    const length = bytes.length + chunk.length;
    if (length > expected.maxBytes) throw tooLarge(expected, length);
    bytes.add(chunk);
    giveBack(chunk);
  }
  if (expected.size !== undefined && bytes.length !== expected.size) throw truncated(expected, bytes.length);
  return bytes.whole();
}

/**
 * Frees the memory of a piece that was copied. Left to V8, pieces of 64 KiB would wait until they are some 60 MiB together:
 * their bytes are outside its heap, and only what is inside makes it look for what nobody needs any more.
 */
function giveBack({ buffer, byteLength }: Buffer): void {
  // Of a piece of something larger, others may need the rest.
  if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
}

/**
 * Reads an open file from its start, as many bytes as were announced.
 *
 * @throws RunnerError `TOO_LARGE` — announced to be over the ceiling
 * @throws RunnerError `TRUNCATED` — shorter or longer than announced
 */
export async function collectFile(
  file: FileHandle,
  expected: ExpectedBody & { readonly size: number },
): Promise<Buffer> {
  if (expected.size > expected.maxBytes) throw tooLarge(expected, expected.size);
  // One byte more than there should be, to see that it is not there.
  const buffer = Buffer.allocUnsafe(expected.size + 1);
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await file.read(buffer, length, buffer.length - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  if (length !== expected.size) throw truncated(expected, length);
  return buffer.subarray(0, length);
}

function tooLarge(expected: ExpectedBody, atLeast: number): RunnerError {
  return new RunnerError(
    "TOO_LARGE",
    `${expected.source}: "${expected.key}" is larger than ${expected.maxBytes} bytes`,
    {
      fields: {
        source: expected.source,
        key: expected.key,
        maxBytes: expected.maxBytes,
        atLeastBytes: atLeast,
      },
    },
  );
}

/** The error of a body that ended early, or otherwise than announced. */
export function truncated(expected: ExpectedBody, length: number | undefined, cause?: unknown): RunnerError {
  const got = length === undefined ? "broke off" : `came with ${length} of ${expected.size} bytes`;
  return new RunnerError("TRUNCATED", `${expected.source}: the body of "${expected.key}" ${got}`, {
    hint: "try again; if it stays, look at what is between this machine and the store",
    fields: {
      source: expected.source,
      key: expected.key,
      ...(expected.size === undefined ? {} : { expectedBytes: expected.size }),
    },
    cause,
  });
}
