import { RunnerError } from "../../error.ts";
import { readCommands, type CommandBody } from "./read-commands.ts";

/**
 * What a person should hear of a body of commands: whether golang-migrate would take it too, where and why not, and
 * what it reads as we do but may not have been meant. None of a body that cannot be read: that is an error elsewhere.
 */
export function commandWarnings(bytes: Uint8Array, path: string): readonly string[] {
  const body = tryToRead(bytes, path);
  if (body === undefined) return [];
  const odd = body.oddities.map(({ what, line, column }) => `${path}:${line}:${column}: ${what}`);
  if (body.beyond === undefined) return odd;
  const { what, line, column } = body.beyond;
  return [`${path}:${line}:${column}: golang-migrate would not take this file: ${what}`, ...odd];
}

function tryToRead(bytes: Uint8Array, path: string): CommandBody | undefined {
  try {
    return readCommands(bytes, path);
  } catch (error) {
    if (error instanceof RunnerError) return undefined;
    throw error;
  }
}
