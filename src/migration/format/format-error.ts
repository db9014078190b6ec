import { RunnerError } from "../../error.ts";

/** `FORMAT`: what a tool, or we, cannot take of a file, with its line (from 1). */
export function formatError(file: string, line: number, what: string, hint: string): RunnerError {
  return new RunnerError("FORMAT", `${file}:${line}: ${what}`, { hint, fields: { migration: file, line } });
}

/** The line (from 1) of an index into a text; LF, CRLF and a lone CR each end one. */
export function lineAt(text: string, index: number): number {
  return text.slice(0, index).split(/\r\n|\r|\n/).length;
}
