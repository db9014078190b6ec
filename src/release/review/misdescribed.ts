import { isDeepStrictEqual } from "node:util";

import { RunnerError } from "../../error.ts";
import { analyzeBody, type BodyFacts } from "../../migration/analyze-body.ts";
import type { Body, Engine, TxMode } from "../../migration/migration.ts";
import { parserName } from "../publish/compose.ts";

/**
 * Whether a manifest says of a body what its bytes do not bear out: another list of statements than it holds, or another
 * way to run them. Nothing else that is shown of a release would tell: only whoever signs first has looked into the files.
 *
 * Judged by this build's parser: that of another version may honestly have found something else.
 */
export async function isMisdescribed(body: Body, bytes: Buffer, engine: Engine): Promise<boolean> {
  if (body.code === true) return !/\.m?[jt]s$/.test(body.path);
  const { tx, alone, locks, statements } = body;
  const said = { tx, alone, locks, ...(statements && { statements }) };
  // the second time as if a tool's own configuration, which is not in the release, had asked for it
  for (const asked of [undefined, tx])
    if (isDeepStrictEqual(said, await factsOf(bytes, body.path, engine, asked))) return false;
  return true;
}

/** Why nobody should sign a manifest by `parser` that says such a thing of this body. */
export function misdescribed(path: string, parser: string): RunnerError {
  const isOurs = parser === parserName;
  return new RunnerError(
    "CHANGED_FILE",
    `the release says of "${path}" what this lockkeeper does not find in it${isOurs ? "" : `; it was made by "${parser}"`}`,
    {
      hint: isOurs
        ? "find out who published it, and do not sign"
        : "sign with the very version of lockkeeper that published it; if that is this one, do not sign",
      fields: { migration: path, parser },
    },
  );
}

async function factsOf(
  bytes: Buffer,
  path: string,
  engine: Engine,
  tx: TxMode | undefined,
): Promise<BodyFacts | undefined> {
  try {
    // an empty one is for publish to refuse
    const text = { bytes, path, direction: "down", ...(tx && { tx }) } as const;
    return await analyzeBody(text, { engine, isSigned: true });
  } catch (error) {
    if (error instanceof RunnerError) return undefined;
    throw error;
  }
}
