import { closeSync, constants, fstatSync, ftruncateSync, openSync, writeSync } from "node:fs";

import type { RunnerError } from "../error.ts";
import { redactText } from "../report/redact.ts";
import { whereOf } from "./failure.ts";
import { textFlag } from "./flag.ts";

/** Where the kubelet takes a container's last words from, where its manifest names no other file. */
const usualFile = "/dev/termination-log";
/** Bytes: the kubelet takes 4 KiB of a container, and 12 KiB of all in a pod together. */
const maxBytes = 1024;
/** Characters of a run's id, which a server may have made up; more than any of ours has. */
const mostRunChars = 160;

/** On verbs that are a container's only program. */
export const terminationLog = textFlag("termination-log", {
  placeholder: "<file>",
  text: "where the outcome is written in a few words when it is known, if the file exists: Kubernetes shows it as the container's message",
  fallback: usualFile,
});

/** How a call ended, for whoever sees nothing else of it. */
export type Ending =
  | { readonly kind: "done"; readonly words: string }
  | {
      readonly kind: "failed";
      readonly error: RunnerError;
      readonly exit: number;
      /** name of the target, or the stream */
      readonly target?: string;
      /** of the database, in words */
      readonly state?: string;
      /** id of the run that failed, where the error names none */
      readonly run?: string;
    };

/**
 * Puts an ending where a container's platform looks for it. Makes no file: where there is none, nobody looks.
 *
 * @returns why it could not be written, where somebody named the file
 */
export function writeEnding(file: string, ending: Ending): string | undefined {
  try {
    // without O_CREAT; not to wait where it is a pipe that nobody reads
    const handle = openSync(file, constants.O_WRONLY | constants.O_NONBLOCK);
    try {
      if (!fstatSync(handle).isFile()) return file === usualFile ? undefined : "it is no regular file";
      ftruncateSync(handle);
      writeSync(handle, formatEnding(ending));
      return undefined;
    } finally {
      closeSync(handle);
    }
  } catch (error) {
    if (file === usualFile) return undefined;
    return error instanceof Error && "code" in error ? String(error.code) : "unknown reason";
  }
}

/** An ending in at most 1 KiB: what happened may be cut, its code, exit code and run may not. */
export function formatEnding(ending: Ending): string {
  if (ending.kind === "done") return fit(`lockkeeper OK ${oneLine(ending.words)}`, "\n");
  const { error, exit, target, state } = ending;
  const where = whereOf(error);
  const { statement, sqlstate, run = ending.run } = error.fields;
  const message = redactText(error.message);
  const what = [
    ...(where === undefined || message.includes(where) ? [] : [`${where}:`]),
    ...(typeof statement === "number" ? [`statement ${statement}:`] : []),
    message,
    ...(typeof sqlstate === "string" && !message.includes(sqlstate) ? [`[${sqlstate}]`] : []),
  ].join(" ");
  const words = [
    what,
    ...(state === undefined ? [] : [`database: ${state}`]),
    ...(error.hint === undefined ? [] : [`next: ${redactText(error.hint)}`]),
  ].join("; ");
  const facts = [
    `code=${error.code}`,
    `exit=${exit}`,
    ...(typeof run === "string" ? [`run=${oneLine(run).slice(0, mostRunChars)}`] : []),
  ];
  return fit(
    `lockkeeper FAILED ${target === undefined ? "" : `${target}: `}${oneLine(words)}`,
    `; ${facts.join(" ")}\n`,
  );
}

function fit(words: string, end: string): string {
  const room = maxBytes - Buffer.byteLength(end);
  const bytes = Buffer.from(words);
  if (bytes.length <= room) return words + end;
  // a character that would be cut in two is left out
  const kept = new TextDecoder().decode(bytes.subarray(0, room - Buffer.byteLength("…")), { stream: true });
  return `${kept}…${end}`;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, " ").trim();
}
