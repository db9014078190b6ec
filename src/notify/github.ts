import * as v from "valibot";

import { isProduction } from "../run/production.ts";
import { UndeliveredError, type Channel } from "./channel.ts";
import { cut, headline, pipelineUrl, summary, type Notification } from "./notification.ts";
import { post } from "./post.ts";

/** characters of a status's description */
const mostDescription = 140;
/** deployments remembered between a run's beginning and its end */
const mostRemembered = 1_000;

const states = {
  started: "in_progress",
  succeeded: "success",
  failed: "failure",
  refused: "error",
  attention: "failure",
} as const satisfies Record<Notification["kind"], string>;

const created = v.object({ id: v.pipe(v.number(), v.integer()) });

/**
 * Sets the status of a GitHub deployment: of the one that the run's label `githubDeployment` names, else of one made for the
 * commit in the label `commit`. Runs without either label are not told of.
 *
 * @param options.token - with the right `deployments: write`, read anew each time
 */
export function githubChannel(options: {
  /** `https://api.github.com`, or a company's own */
  readonly api: URL;
  /** `acme/shop` */
  readonly repository: string;
  /** default: the target's name */
  readonly environment: string | undefined;
  token(): Promise<string>;
}): Channel {
  const base = `${options.api.href.replace(/\/$/, "")}/repos/${options.repository}/deployments`;
  const known = new Map<string, string>();

  async function call(url: string, body: object, signal: AbortSignal): Promise<string> {
    const headers = {
      accept: "application/vnd.github+json",
      "x-github-api-version": "2022-11-28",
      authorization: `Bearer ${await options.token()}`,
    };
    return post(new URL(url), { headers, body: JSON.stringify(body) }, signal);
  }

  async function deploymentOf(notification: Notification, signal: AbortSignal): Promise<string | undefined> {
    const { id, labels, target, environment } = notification.run;
    const named = labels["githubDeployment"] ?? known.get(id);
    if (named !== undefined) return /^\d{1,20}$/.test(named) ? named : undefined;
    const { commit } = labels;
    if (commit === undefined || !/^[0-9a-f]{40}(?:[0-9a-f]{24})?$/.test(commit)) return undefined;
    const answer = await call(
      base,
      {
        ref: commit,
        task: "migrate",
        environment: options.environment ?? target,
        description: cut(headline(notification), mostDescription),
        auto_merge: false,
        // a migration is asked for when the checks have passed already
        required_contexts: [],
        production_environment: isProduction(environment),
      },
      signal,
    );
    const made = readId(answer);
    const [oldest] = known.keys();
    if (known.size >= mostRemembered && oldest !== undefined) known.delete(oldest);
    known.set(id, made);
    return made;
  }

  return {
    name: `github ${options.repository}`,
    async send(notification, signal) {
      const deployment = await deploymentOf(notification, signal);
      if (deployment === undefined) return;
      const link = pipelineUrl(notification);
      await call(
        `${base}/${deployment}/statuses`,
        {
          state: states[notification.kind],
          description: cut(summary(notification), mostDescription),
          environment: options.environment ?? notification.run.target,
          ...(link === undefined ? {} : { log_url: link }),
        },
        signal,
      );
      if (notification.result !== null) known.delete(notification.run.id);
    },
  };
}

function readId(answer: string): string {
  try {
    return String(v.parse(created, JSON.parse(answer)).id);
  } catch (cause) {
    // 202: GitHub has merged something instead of making a deployment
    throw new UndeliveredError("made no deployment", { isFinal: true, cause });
  }
}
