import * as v from "valibot";
import { isVersion } from "../migration/version.ts";
import { parseChainEnd } from "../release/chain.ts";
import { record } from "./json.ts";

/** `sha256:<hex>`, how releases and plans are named. */
export const digest = v.pipe(
  v.string(),
  v.regex(/^sha256:[0-9a-f]{64}$/, 'has to be "sha256:" and 64 lower-case hex digits'),
);

/** `LENGTH:HEAD`, a place in a stream, as `publish` tells it. */
export const chain = v.pipe(
  v.string(),
  v.check(
    (text) => parseChainEnd(text) !== undefined,
    "has to be a number, a colon and 64 lower-case hex digits",
  ),
);

/** A version as callers write it, e.g. `42`, `000042` or `1.2`. */
export const version = v.pipe(
  v.string(),
  v.maxLength(64, "has at most 64 characters"),
  v.check(isVersion, "has to be digits, perhaps with dots between them"),
);

const offered = ["apply", "rollback", "plan", "status", "verify"] as const;
const maxLabels = 16;

/** What can be kept in a database and shown in one line: no control characters, no halves of surrogate pairs. */
const oneLine = v.regex<string, string>(
  /^[^\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]*$/u,
  "has to be one line without control characters",
);

/** A run's id, `<target>.<ULID>`. */
export const runId = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.[0-9A-HJKMNP-TV-Z]{26}$/, "is not the id of a run"),
);

const labelName = v.pipe(
  v.string(),
  v.regex(
    /^[A-Za-z][A-Za-z0-9._-]{0,62}$/,
    "a label's name is a letter, then letters, digits, dots, dashes, underscores; at most 63",
  ),
);
const labels = v.pipe(
  record(labelName, v.pipe(v.string(), v.maxLength(256, "has at most 256 characters"), oneLine)),
  v.check((given) => Object.keys(given).length <= maxLabels, `holds at most ${maxLabels}`),
);

/**
 * The body of `POST /v1/runs`. Closed, and without any field that could name a bucket, host, URL, file or SQL:
 * what a caller can choose is a configured target and a signed release.
 */
export const runRequestSchema = v.pipe(
  v.strictObject({
    target: v.pipe(
      v.string(),
      v.minLength(1, "may not be empty"),
      v.maxLength(100, "has at most 100 characters"),
    ),
    action: v.picklist(
      offered,
      `has to be one of ${offered.join(", ")}; the others have a request or a command of their own`,
    ),
    release: v.optional(v.nullable(v.strictObject({ digest })), null),
    to: v.optional(v.nullable(version), null),
    plan: v.optional(v.nullable(digest), null),
    deadline: v.optional(
      v.nullable(
        v.pipe(
          v.string(),
          v.check(
            (text) => parseIsoDuration(text) !== undefined,
            'has to be a duration like "PT10M", up to 24 hours',
          ),
        ),
      ),
      null,
    ),
    labels: v.optional(labels, {}),
    onFailure: v.optional(
      v.nullable(v.picklist(["keep", "rollback"], 'has to be "keep" or "rollback"')),
      null,
    ),
    allow: v.optional(
      v.nullable(
        v.pipe(
          v.array(v.picklist(["breaking"], 'has to be "breaking"')),
          v.maxLength(1, "holds nothing twice"),
        ),
      ),
      null,
    ),
  }),
  v.forward(
    v.check(
      (body) => body.action !== "rollback" || body.to !== null,
      'a rollback names the version to go back to; "0" is before the first',
    ),
    ["to"],
  ),
  v.forward(
    v.check(
      (body) => body.plan === null || body.action === "apply" || body.action === "rollback",
      "only apply and rollback take an approved plan",
    ),
    ["plan"],
  ),
  v.forward(
    v.check(
      (body) => body.onFailure === null || body.action === "apply",
      "only apply says what to do when a migration fails",
    ),
    ["onFailure"],
  ),
  v.forward(
    v.check((body) => body.allow === null || body.action === "apply", "only apply can be allowed to do more"),
    ["allow"],
  ),
);

/** What `POST /v1/runs` asks for. */
export type RunBody = v.InferOutput<typeof runRequestSchema>;

/** Shown to others in the history: one line of text. */
const reason = v.pipe(
  v.string(),
  v.trim(),
  v.minLength(1, "may not be empty"),
  v.maxLength(500, "has at most 500 characters"),
  oneLine,
);

/** `{ "reason": "…" }`, the body of a cancel. */
export const cancelSchema = v.strictObject({ reason: v.optional(reason, "canceled by a caller") });

/** The body of an unlock: whose lease, and why. */
export const unlockSchema = v.strictObject({
  run: runId,
  reason,
});

/** Milliseconds of an ISO 8601 duration of days, hours, minutes and seconds, more than 0 and at most 24 hours. */
export function parseIsoDuration(text: string): number | undefined {
  const match = /^P(?:([0-9]{1,3})D)?(?:T(?:([0-9]{1,5})H)?(?:([0-9]{1,6})M)?(?:([0-9]{1,7})S)?)?$/.exec(
    text,
  );
  if (match === null || text.endsWith("T")) return undefined;
  const [days, hours, minutes, seconds] = match.slice(1).map((part) => Number(part ?? 0));
  const ms = ((((days ?? 0) * 24 + (hours ?? 0)) * 60 + (minutes ?? 0)) * 60 + (seconds ?? 0)) * 1000;
  return ms > 0 && ms <= 24 * 3600_000 ? ms : undefined;
}
