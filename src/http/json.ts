import { parse } from "lossless-json";
import * as v from "valibot";

/** Own properties with these names are what prototype tricks are made of; no claim, field or label is called so. */
const refusedNames = new Set(["__proto__", "constructor", "prototype"]);

/**
 * JSON text from outside, as JSON.parse reads it, but refused where two readers could see two things:
 * a name twice in one object with two values (also when one is escaped), names that every object inherits, nesting deeper than `maxDepth`.
 *
 * @throws SyntaxError saying what is wrong, without a piece of the text
 */
export function parseStrictJson(text: string, maxDepth: number): unknown {
  if (depthOf(text) > maxDepth) throw new SyntaxError(`nested deeper than ${maxDepth}`);
  const value = parseQuietly((): unknown =>
    JSON.parse(text, (name, member: unknown) => {
      if (refusedNames.has(name)) throw new SyntaxError(`a field may not be called "${name}"`);
      return member;
    }),
  );
  // only for what JSON.parse cannot tell: it keeps the last of two equal names
  parseQuietly(() =>
    parse(text, undefined, {
      onDuplicateKey: ({ key }) => {
        throw new SyntaxError(`the field ${JSON.stringify(key.slice(0, 60))} is there twice`);
      },
    }),
  );
  return value;
}

/** As valibot's own, which takes a list for an object with the names 0, 1, 2… */
export function record<Name extends v.GenericSchema<string, string>, Value extends v.GenericSchema>(
  name: Name,
  value: Value,
) {
  return v.pipe(
    v.unknown(),
    v.check((given) => !Array.isArray(given), "has to be an object"),
    v.record(name, value),
  );
}

/** Both parsers quote the text in their own messages; ours do not. */
function parseQuietly<T>(parseText: () => T): T {
  try {
    return parseText();
  } catch (error) {
    if (error instanceof SyntaxError && /^(a field may not|the field )/.test(error.message)) throw error;
    throw new SyntaxError("not JSON");
  }
}

/** Deepest nesting of brackets outside strings; parsers that recurse would run out of stack before they say so. */
function depthOf(text: string): number {
  let depth = 0;
  let deepest = 0;
  let isQuoted = false;
  for (let at = 0; at < text.length; at++) {
    const char = text[at];
    if (isQuoted) {
      if (char === "\\") at++;
      else if (char === '"') isQuoted = false;
    } else if (char === '"') isQuoted = true;
    else if (char === "[" || char === "{") deepest = Math.max(deepest, ++depth);
    else if (char === "]" || char === "}") depth--;
  }
  return deepest;
}
