import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

import { FrameReader, frameType, queryFrame, queryText } from "./frame.ts";
import type { Moment } from "./point.ts";

/** One message of a runner on its way to the database. */
export interface Exchange {
  readonly text: string;
  readonly line: Line;
  /** settles when the whole answer has come, or the connection has ended */
  readonly answered: Promise<void>;
}

/** One connection of a runner. */
export interface Line {
  /** process id of the backend at its other end */
  backendPid(): number | undefined;
  /** Ends it on both sides. */
  cut(): void;
  /** Lets nothing through any more, in either direction, and ends neither side. */
  silence(): void;
}

/** What to do with what was struck: pass it on after all, or let it vanish. */
export type Fate = "pass" | "drop";

/** A fault that waits for one message. */
export interface Intervention {
  readonly moment: Moment;
  strike(): Promise<Fate>;
}

/** Looks at each message before it is passed on. */
export type Watch = (exchange: Exchange) => Promise<Intervention | undefined>;

/** Stands between one runner and the database. */
export interface DatabaseProxy extends AsyncDisposable {
  readonly port: number;
  cut(): void;
  /** As {@link Line.silence}, on all connections, and on those to come. */
  silence(): void;
}

/** What a proxy is to do. */
export interface DatabaseProxyOptions {
  readonly upstreamPort: number;
  readonly watch: Watch;
  /** changes what the runner says; for the negative controls */
  readonly rewrite?: ((text: string) => string) | undefined;
}

/** Starts one on loopback. */
export async function startDatabaseProxy(options: DatabaseProxyOptions): Promise<DatabaseProxy> {
  const lines = new Set<ProxiedLine>();
  let isSilent = false;
  const server = createServer((client) => {
    const line = new ProxiedLine(client, options, () => lines.delete(line));
    lines.add(line);
    if (isSilent) line.silence();
  });
  await listen(server);
  return {
    port: (server.address() as AddressInfo).port,
    cut() {
      for (const line of lines) line.cut();
    },
    silence() {
      isSilent = true;
      for (const line of lines) line.silence();
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const line of lines) line.cut();
      await closed;
    },
  };
}

class ProxiedLine implements Line {
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #options: DatabaseProxyOptions;
  readonly #fromClient = new FrameReader(true);
  readonly #fromServer = new FrameReader(false);
  readonly #waiting: Buffer[] = [];
  #isPassing = false;
  #isSilent = false;
  /** answers that are kept back */
  #held: Buffer[] | undefined;
  #onAnswer: (() => void) | undefined;
  #backendPid: number | undefined;

  constructor(client: Socket, options: DatabaseProxyOptions, onEnd: () => void) {
    this.#client = client;
    this.#options = options;
    this.#server = connect({ host: "127.0.0.1", port: options.upstreamPort });
    client.on("data", (bytes) => {
      this.#waiting.push(...this.#fromClient.push(bytes));
      void this.#pass();
    });
    this.#server.on("data", (bytes) => this.#answer(bytes));
    for (const socket of [client, this.#server]) {
      socket.setNoDelay(true);
      socket.on("error", () => undefined);
      socket.on("close", () => {
        this.#onAnswer?.();
        if (this.#isSilent) return;
        this.cut();
        onEnd();
      });
    }
  }

  backendPid(): number | undefined {
    return this.#backendPid;
  }

  cut(): void {
    this.#client.destroy();
    this.#server.destroy();
  }

  silence(): void {
    this.#isSilent = true;
    // Not paused: what comes is taken and forgotten, so that neither side's system notices that nobody reads.
  }

  async #pass(): Promise<void> {
    if (this.#isPassing) return;
    this.#isPassing = true;
    for (let frame = this.#waiting.shift(); frame !== undefined; frame = this.#waiting.shift())
      await this.#passOn(frame);
    this.#isPassing = false;
  }

  async #passOn(frame: Buffer): Promise<void> {
    if (frame[0] !== frameType.query) return this.#send(frame);
    const { rewrite, watch } = this.#options;
    const said = queryText(frame);
    const text = rewrite?.(said) ?? said;
    const message = text === said ? frame : queryFrame(text);
    const answered = new Promise<void>((resolve) => (this.#onAnswer = resolve));
    const intervention = this.#isSilent ? undefined : await watch({ text, line: this, answered });
    if (intervention === undefined) return this.#send(message);
    switch (intervention.moment) {
      case "before":
        if ((await intervention.strike()) === "pass") this.#send(message);
        return;
      case "half": {
        const half = Math.floor(message.length / 2);
        this.#send(message.subarray(0, half));
        if ((await intervention.strike()) === "pass") this.#send(message.subarray(half));
        return;
      }
      case "in":
      case "after": {
        const held: Buffer[] = [];
        this.#held = held;
        this.#send(message);
        if (intervention.moment === "after") await answered;
        const fate = await intervention.strike();
        if (fate === "drop") return;
        this.#held = undefined;
        if (!this.#isSilent) for (const part of held) this.#client.write(part);
      }
    }
  }

  #send(bytes: Buffer): void {
    if (!this.#isSilent) this.#server.write(bytes);
  }

  #answer(bytes: Buffer): void {
    let isAnswered = false;
    for (const frame of this.#fromServer.push(bytes)) {
      if (frame[0] === frameType.backendKey) this.#backendPid = frame.readInt32BE(5);
      if (frame[0] === frameType.readyForQuery) isAnswered = true;
    }
    if (this.#held !== undefined) this.#held.push(bytes);
    else if (!this.#isSilent) this.#client.write(bytes);
    if (isAnswered) this.#onAnswer?.();
  }
}

function listen(server: Server): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", resolve);
  });
}
