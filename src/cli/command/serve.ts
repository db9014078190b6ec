import { textFlag } from "../flag.ts";
import { config } from "../flags.ts";
import { terminationLog } from "../termination.ts";
import type { Verb } from "../verb.ts";

const listen = textFlag("listen", {
  placeholder: "<host:port>",
  text: "where to listen, in place of the configuration's",
  explained: "127.0.0.1:8080",
});

/** `lockkeeper serve` */
export const serve: Verb = {
  name: "serve",
  about: "Serves the HTTP API for the targets of a configuration file, until SIGTERM or SIGINT.",
  parameters: [],
  flags: [config, listen, terminationLog],
  examples: [
    { line: "lockkeeper serve --config lockkeeper.yaml", means: "serve; then GET /health/ready answers 200" },
    { line: "lockkeeper serve --config lockkeeper.yaml --listen 0.0.0.0:8080", means: "in a container" },
  ],
  exits: [0, 2, 31],
  async run(invocation) {
    const { context, output, signal, get } = invocation;
    const wiring = await context.wire();
    await wiring.serve({ config: get(config) ?? "lockkeeper.yaml", listen: get(listen) }, signal, (url) => {
      output.note(`lockkeeper listens on ${url}`);
    });
    return 0;
  },
};
