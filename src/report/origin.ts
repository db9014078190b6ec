import type { RunnerError } from "../error.ts";

const mostPlaces = 6;

/**
 * Where a fault of our own comes from, for the log: the kinds of the errors behind it, and the places in our source with
 * the newest first. Neither their messages nor their stacks, which may hold SQL, rows or tokens.
 */
export function originOf({ cause }: RunnerError): string | null {
  const kinds: string[] = [];
  let places = "";
  for (let error = cause; error instanceof Error && kinds.length < mostPlaces; error = error.cause) {
    kinds.push(
      "code" in error && typeof error.code === "string" ? `${error.name} ${error.code}` : error.name,
    );
    places = placesIn(error.stack ?? "") || places;
  }
  if (kinds.length === 0) return null;
  return places === "" ? kinds.join(" of ") : `${kinds.join(" of ")} at ${places}`;
}

/** Frames of this package only; the first line of a stack is the message. */
function placesIn(stack: string): string {
  return [...stack.matchAll(/^\s+at .*\/(?:src|dist)\/([\w./-]+:\d+:\d+)\)?$/gm)]
    .slice(0, mostPlaces)
    .map(([, place]) => place)
    .join(" < ");
}
