import type { WriteStream } from "node:tty";
import type { Sink } from "../report/sink.ts";

/** stdout or stderr as a sink. A reader that goes away (`lockkeeper history | head`) ends the writing, not the program. */
export function sinkOf(stream: NodeJS.WriteStream | WriteStream): Sink {
  let isClosed = false;
  stream.on("error", () => (isClosed = true));
  return {
    // only terminals have the member, whatever the type says
    isTerminal: "isTTY" in stream && stream.isTTY,
    get columns() {
      // a terminal that does not know its size says 0
      return stream.columns > 0 ? stream.columns : undefined;
    },
    write(text) {
      if (!isClosed) stream.write(text);
    },
  };
}
