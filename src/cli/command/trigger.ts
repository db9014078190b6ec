import { RunnerError } from "../../error.ts";
import { choiceFlag, durationFlag, listFlag, required, switchFlag, textFlag } from "../flag.ts";
import { allowBreaking, onFailure, plan, release, target } from "../flags.ts";
import type { RunWish } from "../remote.ts";
import { terminationLog } from "../termination.ts";
import type { Invocation, Verb } from "../verb.ts";

const url = required(textFlag("url", { placeholder: "<url>", text: "the server, https://migrate.example" }));
const tokenFile = textFlag("token-file", {
  placeholder: "<file>",
  text: "file with the bearer token; read anew for each request, because tokens are short-lived",
});
const tokenEnv = textFlag("token-env", {
  placeholder: "<name>",
  text: "variable with the bearer token, where there is no file",
  explained: "LOCKKEEPER_TOKEN; GitHub and Codefresh are asked for one",
});
const audience = textFlag("audience", {
  placeholder: "<text>",
  text: "whom a token is for that GitHub or Codefresh is asked for: the audience of the server's policy",
  explained: "--url",
});
const name = required({ ...target, text: "the name that the server's configuration gives the database" });
const patience = durationFlag("wait", {
  text: "how long to wait for the end of the run; 0 only asks",
  fallback: "10m",
});
const cancelOnInterrupt = switchFlag("cancel-on-interrupt", {
  text: "when this program is stopped, also tell the server to stop the run at its next safe point; else the run goes on",
});
const action = choiceFlag("action", {
  text: "what to ask for",
  choices: ["apply", "rollback", "plan"],
  fallback: "apply",
});
const to = textFlag("to", {
  placeholder: "<version>",
  text: "the version to stop at; a rollback needs one",
  explained: "the newest",
});
const label = listFlag("label", {
  placeholder: "<name=value>",
  text: "kept with the run, such as team=orders; can be repeated. In a pipeline, commit and pipelineUrl are there by themselves",
});
const folder = textFlag("dir", {
  placeholder: "<folder>",
  text: "where the migrations lie in the repository, so that an error on GitHub points at its line",
});

/** As the flag's help says. */
const defaultWaitMs = 600_000;

/** `lockkeeper trigger` */
export const trigger: Verb = {
  name: "trigger",
  about:
    "Asks a lockkeeper server for a run, waits for its end and exits by its outcome. " +
    "For pipelines: needs a token of the pipeline, no database credential. Asking twice for the same release gives the same run. " +
    "On GitHub it also writes a job summary, annotations and the outputs run-id, status, outcome, from, to and release.",
  parameters: [],
  flags: [
    url,
    tokenFile,
    tokenEnv,
    audience,
    name,
    release,
    action,
    to,
    plan,
    allowBreaking,
    onFailure,
    label,
    folder,
    patience,
    cancelOnInterrupt,
    terminationLog,
  ],
  examples: [
    {
      line: "lockkeeper trigger --url https://migrate.example --target orders-prod --release sha256:…",
      means: "on GitHub or GitLab: apply a release and wait",
    },
    {
      line: "lockkeeper trigger --url https://migrate.example --token-file /run/token --target orders-prod --action plan",
      means: "show what would run; its digest goes to --plan",
    },
    {
      line: "lockkeeper trigger --url https://migrate.example --token-file /run/token --target orders-dev --action rollback --to 41",
      means: "go back to version 41",
    },
  ],
  exits: [0, 2, 20, 21, 22, 23, 30, 31, 32, 130, 143],
  whenInterrupted: "no longer waiting for the run",
  async run(invocation) {
    const { context, get, output, signal } = invocation;
    const [
      { openReporter },
      { chooseTokens },
      { openServer },
      { githubJob },
      { showFailure },
      { exitOf },
      { followRun, showPlan },
    ] = await Promise.all([
      import("../reporter.ts"),
      import("../remote-token.ts"),
      import("../remote-server.ts"),
      import("../github-job.ts"),
      import("../failure.ts"),
      import("../exit-code.ts"),
      import("../triggered.ts"),
    ]);
    const address = get(url);
    const tokens = chooseTokens(
      {
        file: get(tokenFile),
        variable: get(tokenEnv),
        audience: get(audience) ?? address.replace(/\/$/, ""),
      },
      context.variables,
    );
    if (isExposed(address)) output.note("warning: the token travels unencrypted; use an https URL");
    const reporter = await openReporter(output);
    const server = openServer(address, tokens, (error, delayMs) =>
      reporter.emit({
        kind: "warning",
        message: `${error.message}; trying again in ${Math.ceil(delayMs / 1_000)} s`,
      }),
    );
    const job = githubJob(context.variables, output);
    const means = { server, reporter, job, output, signal };
    const error =
      get(action) === "plan"
        ? await showPlan({ target: get(name), release: get(release), to: get(to) }, means)
        : await followRun(await readWish(invocation), get(cancelOnInterrupt), means);
    if (error === undefined) return 0;
    job?.annotate(error, get(folder));
    job?.begin("lockkeeper: why");
    showFailure(error, output);
    invocation.ended({ kind: "failed", error, exit: exitOf(error), target: get(name) });
    job?.end();
    return exitOf(error);
  },
};

async function readWish({ context, get }: Invocation): Promise<RunWish> {
  const { pipelineLabels } = await import("../pipeline.ts");
  const asked = get(action);
  return {
    target: get(name),
    release: get(release),
    action: asked === "rollback" ? "rollback" : "apply",
    to: get(to),
    plan: get(plan),
    onFailure: get(onFailure),
    allowsBreaking: get(allowBreaking),
    labels: { ...pipelineLabels(context.variables), ...parseLabels(get(label)) },
    waitMs: get(patience) ?? defaultWaitMs,
  };
}

/** Plain http to another machine. */
function isExposed(text: string): boolean {
  const parsed = URL.parse(text);
  return parsed?.protocol === "http:" && !["localhost", "127.0.0.1", "[::1]"].includes(parsed.hostname);
}

function parseLabels(texts: readonly string[]): Readonly<Record<string, string>> {
  return Object.fromEntries(
    texts.map((text) => {
      const [, key, value] = /^([^=]+)=(.*)$/.exec(text) ?? [];
      if (key === undefined || value === undefined)
        throw new RunnerError("USAGE", `--label: expected name=value, got ${JSON.stringify(text)}`);
      return [key, value];
    }),
  );
}
