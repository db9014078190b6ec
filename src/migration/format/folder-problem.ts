import { RunnerError } from "../../error.ts";
import type { ErrorFields, RunnerErrorCode } from "../../error.ts";
import type { IgnoredFile } from "./format.ts";

/** What is wrong with one name of a folder, and what to do. */
export interface FolderProblem {
  readonly code: RunnerErrorCode;
  readonly message: string;
  readonly hint: string;
  readonly fields: ErrorFields;
}

/** `UNKNOWN_FILE`: a name that must not be passed over. */
export function unknownFile(name: string, what: string, hint: string): FolderProblem {
  return { code: "UNKNOWN_FILE", message: `${quote(name)} ${what}`, hint, fields: { migration: name } };
}

/** `DUPLICATE_VERSION`: two files for the same version and direction. */
export function duplicateVersion(first: string, second: string): FolderProblem {
  return {
    code: "DUPLICATE_VERSION",
    message: `${quote(first)} and ${quote(second)} have the same version`,
    hint: "give one of them another version",
    fields: { migration: second, other: first },
  };
}

/** Whether a release can hold the name as a label (trust.md 2.2). */
export function isLabel(name: string): boolean {
  return LABEL.test(name);
}

/** `NAME`: a migration whose name no release can hold. */
export function notALabel(name: string): FolderProblem {
  return {
    code: "NAME",
    message: `${quote(name)}: a file name may have 1 to 200 of the characters A-Z a-z 0-9 . _ + -`,
    hint: "rename it",
    fields: { migration: name },
  };
}

/**
 * `NO_MIGRATIONS`.
 *
 * @param wanted - how the tool's files are named
 */
export function noMigrations(ignored: readonly IgnoredFile[], wanted: string): FolderProblem {
  const others =
    ignored.length === 0 ? "it is empty" : `of its ${ignored.length} files none is named ${wanted}`;
  return {
    code: "NO_MIGRATIONS",
    message: `no migrations in the folder: ${others}`,
    hint: "check the folder or prefix; lockkeeper create makes a first pair of files",
    fields: { files: ignored.length },
  };
}

/** All that is wrong with a folder in one error, the first ten in full; its code is that of the first. */
export function folderError(problems: readonly FolderProblem[]): RunnerError {
  const [first] = problems;
  if (first === undefined) return new RunnerError("INTERNAL", "a folder's problems got lost");
  if (problems.length === 1)
    return new RunnerError(first.code, first.message, { hint: first.hint, fields: first.fields });
  const listed = problems
    .slice(0, MAX_LISTED_PROBLEMS)
    .map(({ code, message, hint }) => `\n  ${code} ${message}; ${hint}`);
  const more =
    problems.length > MAX_LISTED_PROBLEMS ? `\n  and ${problems.length - MAX_LISTED_PROBLEMS} more` : "";
  return new RunnerError(first.code, `${problems.length} problems in the folder:${listed.join("")}${more}`, {
    hint: "correct them all, then run again",
    fields: { ...first.fields, problems: problems.length },
  });
}

/** Names may hold anything: control characters are shown as escapes. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 220 ? `${name.slice(0, 220)}…` : name);
}

const LABEL = /^[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,199}$/;
const MAX_LISTED_PROBLEMS = 10;
