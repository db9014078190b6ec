import { formatDuration } from "./duration.ts";
import { describeEvent } from "./lines.ts";
import { redactText } from "./redact.ts";
import type { Reporter, Sink } from "./sink.ts";

/** How often the elapsed time is drawn anew, milliseconds: often enough to look alive, seldom enough for a slow line. */
const redrawMs = 200;

/** Characters of the bar itself; plain ones, because a console on the way may know no others. */
const barWidth = 24;

/** A bar on a terminal's last line: done of all, the migration under way, the time it takes so far. */
export function progressBar(sink: Sink, isVerbose: boolean, now: () => number): Reporter {
  const startedAt = now();
  let state: { readonly done: number; readonly total: number; readonly current: string | null } | undefined;
  let drawnAt = -Infinity;
  let isDrawn = false;

  const draw = (): void => {
    if (state === undefined) return;
    drawnAt = now();
    isDrawn = true;
    sink.write(
      `\r\u001b[2K${formatBar(state.done, state.total, state.current, now() - startedAt, sink.columns ?? 80)}`,
    );
  };
  const clear = (): void => {
    if (isDrawn) sink.write("\r\u001b[2K");
    isDrawn = false;
  };
  const timer = setInterval(draw, redrawMs);
  timer.unref();

  const show = (done: number, total: number, current: string | null): void => {
    state = { done, total, current };
    // thousands of steps a second must not become thousands of writes
    if (now() - drawnAt >= redrawMs / 2) draw();
  };
  return {
    emit(event) {
      if (event.kind === "step.started") return show(event.index, event.total, event.path);
      if (event.kind === "step.succeeded")
        return show(event.done, event.total, event.done === event.total ? null : (state?.current ?? null));
      const line = describeEvent(event, isVerbose);
      if (line === undefined) return;
      // its last word stays, as that of a step does
      if (event.kind === "backfill.progress" && event.fraction !== 1 && state !== undefined)
        return show(state.done, state.total, line);
      clear();
      sink.write(`${redactText(line)}\n`);
      draw();
    },
    progress: show,
    end() {
      clearInterval(timer);
      clear();
    },
  };
}

/**
 * `[########----------------] 3/9 000004_orders.up.sql 1.2 s`, never wider than the line: where it would be, `current`
 * goes without its first word, the migration's name, and then altogether.
 */
export function formatBar(
  done: number,
  total: number,
  current: string | null,
  elapsedMs: number,
  columns: number,
): string {
  const filled = total === 0 ? barWidth : Math.floor((Math.min(done, total) / total) * barWidth);
  const bar = `[${"#".repeat(filled)}${"-".repeat(barWidth - filled)}]`;
  const [, rest = ""] = /^\S+ (.*)$/.exec(current ?? "") ?? [];
  const lines = [current ?? "", rest, ""].map((text) =>
    [bar, `${done}/${total}`, ...(text === "" ? [] : [text]), formatDuration(elapsedMs)].join(" "),
  );
  // one column short of the edge: a full line makes some terminals wrap
  return (lines.find((line) => line.length < columns) ?? lines.at(-1) ?? "").slice(
    0,
    Math.max(0, columns - 1),
  );
}
