import * as v from "valibot";
import { notificationKinds } from "../notify/notification.ts";

const text = v.pipe(v.string("expected text"), v.minLength(1, "expected text, not nothing"));
const repository = v.pipe(
  v.string("expected owner/name"),
  v.regex(/^[A-Za-z0-9-]{1,39}\/[A-Za-z0-9._-]{1,100}$/, "expected owner/name"),
);

const webhook = v.pipe(
  v.strictObject({ url: v.optional(text), urlFile: v.optional(text), secretFile: text }),
  v.check(
    ({ url, urlFile }) => (url === undefined) !== (urlFile === undefined),
    "expected exactly one of url, urlFile",
  ),
);
// the URL is all that it takes to post there, so it stands in a file
const slack = v.strictObject({ urlFile: text });
const github = v.strictObject({
  repository,
  tokenFile: text,
  environment: v.optional(text),
  api: v.optional(text, "https://api.github.com"),
});

const one = v.pipe(
  v.strictObject({
    webhook: v.optional(webhook),
    slack: v.optional(slack),
    github: v.optional(github),
    on: v.optional(
      v.pipe(
        v.array(v.picklist(notificationKinds, `expected one of ${notificationKinds.join(", ")}`)),
        v.minLength(1, "expected at least one"),
      ),
    ),
    targets: v.optional(v.pipe(v.array(text), v.minLength(1, "expected at least one target"))),
  }),
  v.check(
    (given) => [given.webhook, given.slack, given.github].filter((way) => way !== undefined).length === 1,
    "expected exactly one of webhook, slack, github",
  ),
);

/** Who is told what becomes of runs: the section `notify` of the configuration. */
export const notifySchema = v.array(one, "expected a list");

/** One entry of the section, paths as they were written. */
export type NotifyText = v.InferOutput<typeof one>;
