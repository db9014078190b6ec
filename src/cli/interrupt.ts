import { RunnerError } from "../error.ts";

/** Exit codes that shells expect of a program that a signal ended. */
const exitOf = { SIGINT: 130, SIGTERM: 143 } as const;

/**
 * A signal that aborts at the first SIGINT or SIGTERM, so that a run stops at its next safe point.
 * The second one ends the process at once: whoever sends it does not want to wait.
 */
export function abortOnInterrupt(): AbortSignal {
  const controller = new AbortController();
  const listen = (name: keyof typeof exitOf): void => {
    process.on(name, () => {
      if (controller.signal.aborted) process.exit(exitOf[name]);
      controller.abort(
        new RunnerError("CANCELED", `stopped by ${name}`, {
          hint: "run the same command again to go on where it stopped",
        }),
      );
    });
  };
  listen("SIGINT");
  listen("SIGTERM");
  return controller.signal;
}
