/** How the two ends talk. */
export type Protocol = "http" | "postgres" | "mongodb";

/** Follows one connection, piece by piece. */
export interface Tap {
  up(bytes: Buffer): void;
  down(bytes: Buffer): void;
}

/** For each protocol, what tells `ask` of everything that the client sends and then has to wait for the answer of. */
export const taps: Readonly<Record<Protocol, (ask: (what: string) => void) => Tap>> = {
  http: tapHttp,
  postgres: tapPostgres,
  mongodb: tapMongo,
};

/** characters of what was asked that are kept */
const askedChars = 500;

/** Nobody here pipelines: a request begins a piece of its own. */
function tapHttp(ask: (what: string) => void): Tap {
  return {
    up(bytes) {
      const line = /^([A-Z]+ \S+) HTTP\/1\.1\r\n/.exec(bytes.toString("latin1", 0, 8_192))?.[1];
      if (line !== undefined) ask(line.slice(0, askedChars));
    },
    down: () => undefined,
  };
}

/** Protocol version of a start-up message; TLS, GSSAPI and cancel requests have others of their own. */
const startsSession = (code: number): boolean => code >>> 16 === 3;
/** SSLRequest and GSSENCRequest: answered by one byte, and a start-up message follows. */
const asksEncryption = new Set([80_877_103, 80_877_104]);

/** A client waits after Query and Sync until the server is ready for the next: one of each for every two. */
function tapPostgres(ask: (what: string) => void): Tap {
  let hasStarted = false;
  let answersOfOneByte = 0;
  let waiting = 0;
  let parsed = "";
  const wait = (what: string): void => {
    // Of several messages sent at once, a pipeline, only the first begins a wait.
    if (waiting === 0) ask(what);
    waiting += 1;
  };
  const up = messages(
    () => (hasStarted ? 1 : 0),
    (head) => {
      if (!hasStarted) {
        const code = head.length < 8 ? 0 : head.readUInt32BE(4);
        hasStarted = startsSession(code);
        if (asksEncryption.has(code)) answersOfOneByte += 1;
        return;
      }
      const text = head.toString("utf8", 5).split("\0");
      switch (String.fromCharCode(head[0] ?? 0)) {
        case "Q":
          return wait(text[0] ?? "");
        case "P":
          parsed = text[1] ?? "";
          return;
        case "S":
          return wait(parsed);
      }
    },
  );
  const down = messages(
    () => 1,
    (head) => {
      if (head[0] === "Z".charCodeAt(0)) waiting = Math.max(0, waiting - 1);
    },
  );
  return {
    up,
    down(bytes) {
      const skipped = Math.min(answersOfOneByte, bytes.length);
      answersOfOneByte -= skipped;
      down(bytes.subarray(skipped));
    },
  };
}

/** Calls back with the beginning of each message of `type, length, content`, whose length counts itself and the content. */
function messages(typeBytes: () => number, take: (head: Buffer) => void): (bytes: Buffer) => void {
  return pieces((head) => {
    const type = typeBytes();
    return head.length < type + 4 ? undefined : type + head.readUInt32BE(type);
  }, take);
}

/** OP_MSG: a header of 16 bytes, flags, then one document of kind 0. */
const opMsg = { code: 2_013, flagsAt: 16, documentAt: 21, moreToCome: 2 };
/** Connecting, logging in, and watching the server. */
const notAsked = new Set(["hello", "ismaster", "isMaster", "saslStart", "saslContinue"]);

/** A client waits for the answer to each command, but for those that it sends without wanting one. */
function tapMongo(ask: (what: string) => void): Tap {
  return {
    up: pieces(
      (head) => (head.length < 4 ? undefined : head.readInt32LE(0)),
      (head) => {
        if (head.length < opMsg.documentAt || head.readInt32LE(12) !== opMsg.code) return;
        if ((head.readUInt32LE(opMsg.flagsAt) & opMsg.moreToCome) !== 0) return;
        // After the document's length and its first element's type comes the element's name: the command.
        const name = head.toString("latin1", opMsg.documentAt + 5).split("\0")[0] ?? "";
        if (!notAsked.has(name)) ask(name);
      },
    ),
    down: () => undefined,
  };
}

/**
 * Puts a stream of messages together: `take` has the first bytes of each, all of a short one.
 *
 * @param lengthOf - a message's whole length by its first bytes; undefined while these are too few
 */
function pieces(
  lengthOf: (head: Buffer) => number | undefined,
  take: (head: Buffer) => void,
): (bytes: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  /** bytes still to come of a message that was taken */
  let skip = 0;
  return (bytes) => {
    rest = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
    for (;;) {
      const skipped = Math.min(skip, rest.length);
      rest = rest.subarray(skipped);
      skip -= skipped;
      const length = skip > 0 ? undefined : lengthOf(rest);
      if (length === undefined) return;
      const head = Math.min(length, askedChars);
      if (rest.length < head) return;
      take(rest.subarray(0, head));
      skip = length;
    }
  };
}
