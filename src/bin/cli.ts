#!/usr/bin/env node
import { abortOnInterrupt } from "../cli/interrupt.ts";
import { main } from "../cli/main.ts";
import { sinkOf } from "../cli/terminal.ts";
import { readVariables } from "./config.ts";

const variables = readVariables();
const stderr = sinkOf(process.stderr);
process.exitCode = await main(process.argv.slice(2), {
  variables,
  stdout: sinkOf(process.stdout),
  stderr,
  signal: abortOnInterrupt(),
  wire: async () => (await import("./wire.ts")).makeWiring(variables),
});
