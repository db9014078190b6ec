import { RunnerError } from "../error.ts";
import { signalExits } from "./exit-code.ts";

/**
 * A signal that aborts at the first SIGINT or SIGTERM, so that a run stops at its next safe point.
 * The second one ends the process at once: whoever sends it does not want to wait.
 */
export function abortOnInterrupt(): AbortSignal {
  const controller = new AbortController();
  const listen = (name: keyof typeof signalExits): void => {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(signalExits[name]);
      controller.abort(
        new RunnerError("CANCELED", `stopped by ${name}`, {
          hint: "run the same command again to go on where it stopped",
          fields: { signal: name },
        }),
      );
    });
  };
  listen("SIGINT");
  listen("SIGTERM");
  return controller.signal;
}
