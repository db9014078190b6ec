import { RunnerError } from "../../error.ts";
import { choiceFlag, durationFlag, listFlag, required, textFlag } from "../flag.ts";
import { allowBreaking, onFailure, plan, release, target } from "../flags.ts";
import type { Verb } from "../verb.ts";

const url = required(textFlag("url", { placeholder: "<url>", text: "the server, https://migrate.example" }));
const tokenFile = required(
  textFlag("token-file", {
    placeholder: "<file>",
    text: "file with the bearer token; read anew for each request, because tokens are short-lived",
  }),
);
const name = required({ ...target, text: "the name that the server's configuration gives the database" });
const patience = durationFlag("wait", {
  text: "how long to wait for the end of the run; 0 only asks",
  fallback: "10m",
});
const action = choiceFlag("action", {
  text: "what to ask for",
  choices: ["apply", "rollback"],
  fallback: "apply",
});
const to = textFlag("to", {
  placeholder: "<version>",
  text: "the version to stop at; a rollback needs one",
  explained: "the newest",
});
const label = listFlag("label", {
  placeholder: "<name=value>",
  text: "kept with the run, such as commit=3f2a9b1; can be repeated",
});

/** As the flag's help says. */
const defaultWaitMs = 600_000;

/** `lockkeeper trigger` */
export const trigger: Verb = {
  name: "trigger",
  about:
    "Asks a lockkeeper server for a run, waits for its end and exits by its outcome. " +
    "For pipelines: needs a token of the pipeline, no database credential. Asking twice for the same release gives the same run.",
  parameters: [],
  flags: [url, tokenFile, name, release, action, to, plan, allowBreaking, onFailure, label, patience],
  examples: [
    {
      line: "lockkeeper trigger --url https://migrate.example --token-file /run/token --target orders-prod --release sha256:…",
      means: "apply a release and wait",
    },
    {
      line: "lockkeeper trigger --url https://migrate.example --token-file /run/token --target orders-dev --action rollback --to 41",
      means: "go back to version 41",
    },
  ],
  exits: [0, 2, 20, 21, 22, 23, 30, 31, 32],
  async run(invocation) {
    const [{ openReporter }, { triggerRun }, { errorOfRun }, { formatRun }, { showFailure }, { exitOf }] =
      await Promise.all([
        import("../reporter.ts"),
        import("../remote.ts"),
        import("../remote-run.ts"),
        import("../show-run.ts"),
        import("../failure.ts"),
        import("../exit-code.ts"),
      ]);
    const { get, output, signal } = invocation;
    const request = {
      url: get(url),
      tokenFile: get(tokenFile),
      target: get(name),
      release: get(release),
      action: get(action),
      to: get(to),
      plan: get(plan),
      onFailure: get(onFailure),
      allowsBreaking: get(allowBreaking),
      labels: parseLabels(get(label)),
      waitMs: get(patience) ?? defaultWaitMs,
    };
    if (isExposed(request.url)) output.note("warning: the token travels unencrypted; use an https URL");
    const reporter = await openReporter(output);
    try {
      let shown = "";
      const run = await triggerRun(request, {
        signal,
        onProgress({ progress: { applied, total, current } }) {
          const state = `${applied}/${total} ${current ?? ""}`;
          if (state !== shown && total > 0) reporter.progress(applied, total, current);
          shown = state;
        },
      });
      reporter.end();
      output.result(run, () => formatRun(run, output.paint.out));
      const error = run.done || request.waitMs > 0 ? errorOfRun(run) : undefined;
      if (error === undefined) return 0;
      showFailure(error, output);
      return exitOf(error);
    } finally {
      reporter.end();
    }
  },
};

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
