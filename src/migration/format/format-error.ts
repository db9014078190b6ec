import { RunnerError } from "../../error.ts";

/** `FORMAT`: what a tool, or we, cannot take of a file, with its line (from 1). */
export function formatError(file: string, line: number, what: string, hint: string): RunnerError {
  return new RunnerError("FORMAT", `${file}:${line}: ${what}`, { hint, fields: { migration: file, line } });
}

/** The line (from 1) of an index into a text; LF, CRLF and a lone CR each end one. */
export function lineAt(text: string, index: number): number {
  return linesOf(text)(index);
}

/** As {@link lineAt}, for many indexes into one text: its line ends are looked for once, when the first is asked for. */
export function linesOf(text: string): (index: number) => number {
  let starts: readonly number[] | undefined;
  return (index) => {
    starts ??= [0, ...Array.from(text.matchAll(/\r\n|\r|\n/g), (end) => end.index + end[0].length)];
    let [low, high] = [0, starts.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((starts[middle] ?? Infinity) <= index) low = middle;
      else high = middle;
    }
    return low + 1;
  };
}
