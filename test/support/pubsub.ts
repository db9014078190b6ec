import { part } from "./parts.ts";
import { serverFolder, startServer, untilReady, withFreePort } from "./server.ts";

/** Google's emulator of Pub/Sub. */
export interface Pubsub {
  /** `127.0.0.1:1234`, for what is to publish */
  readonly host: string;
  /** Makes a topic, `projects/test/topics/<name>`, and a subscription that pushes what comes to it. */
  createPush(topic: string, endpoint: string): Promise<void>;
  stop(): Promise<void>;
}

/** Starts the emulator on a free port of loopback. The file needs `needs("pubsub-emulator", "java")`, and `stop` in its `afterAll`. */
export async function startPubsub(): Promise<Pubsub> {
  const jar = part("pubsub-emulator");
  return withFreePort(async (port) => {
    const host = `127.0.0.1:${port}`;
    const args = ["-Xmx128m", "-jar", jar, "--host=127.0.0.1", `--port=${port}`];
    const server = startServer({
      command: part("java"),
      args,
      folder: serverFolder("pubsub"),
      stopSignal: "KILL",
    });
    const call = async (resource: string, body: object): Promise<boolean> => {
      const answer = await fetch(`http://${host}/v1/projects/test/${resource}`, {
        method: "PUT",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(body),
      });
      await answer.arrayBuffer();
      return answer.ok;
    };
    // It takes connections before it takes requests.
    await untilReady("pubsub-emulator", server, () => call("topics/ready", {}));
    return {
      host,
      async createPush(topic, pushEndpoint) {
        const subscription = {
          topic: `projects/test/topics/${topic}`,
          pushConfig: { pushEndpoint },
          ackDeadlineSeconds: 10,
        };
        const isMade =
          (await call(`topics/${topic}`, {})) && (await call(`subscriptions/${topic}`, subscription));
        if (!isMade) throw new Error(`no topic and subscription "${topic}"`);
      },
      stop: () => server.stop(),
    };
  });
}
