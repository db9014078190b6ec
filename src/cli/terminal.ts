import type { WriteStream } from "node:tty";
import type { Sink } from "../report/sink.ts";

type Output = NodeJS.WriteStream | WriteStream;

/**
 * stdout and stderr as sinks. A reader that goes away (`lockkeeper history | head`) ends the writing, not the program.
 *
 * To a pipe or a file, what is told in one breath goes in one write, in the order in which it was told: a thousand
 * migrations must not wait a thousand times for whoever reads of them. `flush` is for a process that ends in the middle.
 */
export function sinksOf(
  stdout: Output,
  stderr: Output,
): { readonly stdout: Sink; readonly stderr: Sink; flush(): void } {
  let told: { readonly stream: Output; text: string }[] = [];
  const closed = new Set<Output>();
  const flush = (): void => {
    const all = told;
    told = [];
    for (const { stream, text } of all) if (!closed.has(stream)) stream.write(text);
  };
  const sinkOf = (stream: Output): Sink => {
    stream.on("error", () => closed.add(stream));
    // only terminals have the member, whatever the type says
    const isTerminal = "isTTY" in stream && stream.isTTY;
    return {
      isTerminal,
      get columns() {
        // a terminal that does not know its size says 0
        return stream.columns > 0 ? stream.columns : undefined;
      },
      write(text) {
        if (told.length === 0) queueMicrotask(flush);
        const last = told.at(-1);
        if (last?.stream === stream) last.text += text;
        else told.push({ stream, text });
        if (isTerminal) flush();
      },
    };
  };
  return { stdout: sinkOf(stdout), stderr: sinkOf(stderr), flush };
}
