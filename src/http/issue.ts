import type * as v from "valibot";

/** What valibot found, in words: `/release/digest: has to be a text; /sql: is not a known field`. */
export function wordsOf(issues: readonly v.BaseIssue<unknown>[]): readonly string[] {
  return issues.map(
    (issue) => `${pointerTo((issue.path ?? []).map((item) => item.key))}: ${reasonOf(issue)}`,
  );
}

/** JSON Pointer (RFC 6901) of a place in a document; `/` is the whole of it. */
export function pointerTo(path: readonly unknown[]): string {
  if (path.length === 0) return "/";
  return path
    .map((key) => `/${String(key).slice(0, 60).replaceAll("~", "~0").replaceAll("/", "~1")}`)
    .join("");
}

function reasonOf(issue: v.BaseIssue<unknown>): string {
  if (issue.type === "strict_object" && issue.expected === "never") return "is not a known field";
  if (issue.received === "undefined") return "is missing";
  switch (issue.expected) {
    case "string":
      return "has to be a text";
    case "number":
      return "has to be a number";
    case "boolean":
      return "has to be true or false";
    case "Object":
      return "has to be an object";
    case "Array":
      return "has to be a list";
    default:
      return issue.message;
  }
}
