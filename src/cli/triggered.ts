import { RunnerError } from "../error.ts";
import type { Reporter } from "../report/sink.ts";
import type { GithubJob } from "./github-job.ts";
import type { Output } from "./output.ts";
import { askPlan, triggerRun } from "./remote.ts";
import type { RunWish } from "./remote.ts";
import { errorOfRun } from "./remote-run.ts";
import type { RemoteServer } from "./remote-server.ts";
import { summarizeError, summarizePlan, summarizeRun } from "./remote-summary.ts";
import { formatRemotePlan, formatRun } from "./show-run.ts";

/** Who is asked, and who is told what came of it. */
export interface TriggerMeans {
  readonly server: RemoteServer;
  readonly reporter: Reporter;
  readonly job: GithubJob | undefined;
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** Asks for a run, follows it and tells of it. Gives the error that it, or the request, ended with. */
export async function followRun(
  wish: RunWish,
  cancelsOnAbort: boolean,
  { server, reporter, job, output, signal }: TriggerMeans,
): Promise<RunnerError | undefined> {
  let shown = "";
  job?.begin(`lockkeeper: ${wish.target}`);
  try {
    const followed = await triggerRun(server, wish, {
      signal,
      cancelsOnAbort,
      emit: reporter.emit,
      onProgress({ status, progress: { applied, total, current } }) {
        const state = `${status} ${applied}/${total} ${current ?? ""}`;
        if (state !== shown && total > 0) reporter.progress(applied, total, current);
        shown = state;
      },
    });
    const { run } = followed;
    reporter.end();
    job?.end();
    output.result(run, () => formatRun(run, output.paint.out));
    const error = run.done || wish.waitMs > 0 ? errorOfRun(run) : undefined;
    await job?.setOutputs({
      "run-id": run.id,
      status: run.status,
      outcome: run.outcome ?? "",
      from: run.from ?? "",
      to: run.to ?? "",
      release: run.release?.digest ?? "",
    });
    await job?.summarize(summarizeRun(followed, error));
    return error;
  } catch (thrown) {
    reporter.end();
    job?.end();
    if (!(thrown instanceof RunnerError)) throw thrown;
    const { run } = thrown.fields;
    await job?.setOutputs({ "run-id": typeof run === "string" ? run : "", status: "unknown", outcome: "" });
    await job?.summarize(summarizeError(wish.target, thrown));
    return thrown;
  }
}

/** Asks what a run would do and tells of it. Gives the error that the request ended with. */
export async function showPlan(
  wish: Pick<RunWish, "target" | "release" | "to">,
  { server, reporter, job, output, signal }: TriggerMeans,
): Promise<RunnerError | undefined> {
  try {
    const planned = await askPlan(server, wish, signal);
    reporter.end();
    output.result(planned, () => formatRemotePlan(planned, output.paint.out));
    const { digest, steps, from, to, release } = planned.plan;
    await job?.setOutputs({
      plan: digest,
      steps: String(steps.length),
      from: from ?? "",
      to: to ?? "",
      release: release.digest,
    });
    await job?.summarize(summarizePlan(planned));
    return undefined;
  } catch (thrown) {
    reporter.end();
    if (!(thrown instanceof RunnerError)) throw thrown;
    await job?.summarize(summarizeError(wish.target, thrown));
    return thrown;
  }
}
