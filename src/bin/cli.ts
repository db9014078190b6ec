#!/usr/bin/env node

/** The oldest Node that this program runs on; `engines` of package.json says the same, but only npm reads that. */
const oldest = { major: 24, minor: 15 } as const;

/** milliseconds for what is still under way when all is said */
const leftoverMs = 5_000;

const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
if (major < oldest.major || (major === oldest.major && minor < oldest.minor)) {
  process.stderr.write(
    `error: lockkeeper needs Node ${oldest.major}.${oldest.minor} or later, this is ${process.versions.node}\n`,
  );
  process.exitCode = 2;
} else {
  await start();
}

/** All imports come after the check: an older Node may not even read them. */
async function start(): Promise<void> {
  const [{ abortOnInterrupt }, { lastWords, main, warn }, { sinksOf }, { readVariables }] = await Promise.all(
    [
      import("../cli/interrupt.ts"),
      import("../cli/main.ts"),
      import("../cli/terminal.ts"),
      import("./config.ts"),
    ],
  );
  const variables = readVariables();
  const argv = process.argv.slice(2);
  const { flush, ...sinks } = sinksOf(process.stdout, process.stderr);
  process.on("exit", flush);
  const context = {
    variables,
    ...sinks,
    signal: abortOnInterrupt(),
    wire: async () =>
      (await import("./wire.ts")).makeWiring(variables, (message) => warn(message, argv, context)),
  };
  // Also promises that were rejected and not waited for. Nothing is known of the state any more, so nothing goes on.
  process.on("uncaughtException", (thrown) => process.exit(lastWords(thrown, argv, context)));
  process.exitCode = await main(argv, context);
  // When nothing is under way any more: ending at once spares giving all memory back piece by piece.
  process.once("beforeExit", () => process.exit());
  // What a migration that is a program left running, because it was not waited for any more, keeps nobody here.
  setTimeout(() => process.exit(), leftoverMs).unref();
}
