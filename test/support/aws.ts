import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { Agent, request } from "node:https";
import path from "node:path";
import { part } from "./parts.ts";
import { serverFolder, startServer, untilReady, withFreePort } from "./server.ts";

/** Keys of somebody whom the account knows. */
export interface AwsKeys {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** An AWS account of the file's own: IAM is enforced, connections are TLS, functions run on this Node. */
export interface AwsAccount extends AsyncDisposable {
  readonly endpoint: string;
  readonly id: string;
  readonly region: string;
  /** the account's root, whom no policy stops */
  readonly root: AwsKeys;
  /** What a client of the SDK is made with, to be somebody. */
  as(keys: AwsKeys): {
    readonly endpoint: string;
    readonly region: string;
    readonly credentials: AwsKeys;
    readonly maxAttempts: number;
    readonly requestHandler: { readonly httpsAgent: Agent };
  };
  /** What a program's environment says, for it to be somebody. */
  environment(keys: AwsKeys): Readonly<Record<string, string>>;
  /** Ends it, with all functions. Repeated calls are fine. */
  stop(): Promise<void>;
}

const region = "us-east-1";
const root: AwsKeys = { accessKeyId: "test", secretAccessKey: "test" };

/** Starts a MiniStack on a free port of loopback. The file needs `needs("ministack")`, and `stop` in its `afterAll`. */
export async function startAws(): Promise<AwsAccount> {
  return withFreePort(async (port) => {
    const folder = serverFolder("aws");
    const temporary = path.join(folder, "tmp");
    mkdirSync(temporary);
    const certificate = path.join(temporary, "ministack-tls", "server.crt");
    const server = startServer({
      command: part("ministack"),
      args: [],
      folder,
      // What it unpacks of a function has to be gone at once when it ends.
      stopSignal: "KILL",
      env: {
        GATEWAY_PORT: String(port),
        // Without these two it would listen on every address.
        BIND_HOST: "127.0.0.1",
        IOT_MTLS_ENABLED: "0",
        // what addresses of APIs end in; one that ends in a number would be no host name
        MINISTACK_HOST: "localhost",
        AUTH: "true",
        USE_SSL: "1",
        TMPDIR: temporary,
        // It makes itself a certificate there, which functions are to believe.
        NODE_EXTRA_CA_CERTS: certificate,
        // Functions run on the first "node" there is.
        PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env["PATH"] ?? ""}`,
      },
    });
    const endpoint = `https://127.0.0.1:${port}`;
    await untilReady("ministack", server, async () => existsSync(certificate) && isAnswering(endpoint));
    const httpsAgent = new Agent({ ca: readFileSync(certificate), keepAlive: true });
    return {
      endpoint,
      id: "000000000000",
      region,
      root,
      as: (credentials) => ({
        endpoint,
        region,
        credentials,
        maxAttempts: 1,
        requestHandler: { httpsAgent },
      }),
      environment: ({ accessKeyId, secretAccessKey, sessionToken }) => ({
        AWS_ENDPOINT_URL: endpoint,
        AWS_REGION: region,
        AWS_DEFAULT_REGION: region,
        AWS_ACCESS_KEY_ID: accessKeyId,
        AWS_SECRET_ACCESS_KEY: secretAccessKey,
        ...(sessionToken === undefined ? {} : { AWS_SESSION_TOKEN: sessionToken }),
        AWS_CA_BUNDLE: certificate,
        NODE_EXTRA_CA_CERTS: certificate,
      }),
      stop: () => server.stop(),
      [Symbol.asyncDispose]: () => server.stop(),
    };
  });
}

function isAnswering(endpoint: string): Promise<boolean> {
  return new Promise((resolve) => {
    // whether it is there, not who it is
    const asked = request(`${endpoint}/health`, { rejectUnauthorized: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    });
    asked.on("error", () => resolve(false)).end();
  });
}
