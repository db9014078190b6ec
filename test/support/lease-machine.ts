import fc from "fast-check";
import { expect } from "vitest";
import { newRunId } from "../../src/run/request.ts";

/**
 * The lease as a state machine: what several runners may do one after the other, in any order, and a model that says
 * who may write. After each command the database has to agree with the model.
 */

/** One runner, by a driver or by statements of its own. At most one lease at a time. */
export interface Runner {
  /** Tries once; its token, or undefined. */
  take(runId: string): Promise<number | undefined>;
  /** Applies a body as migration `seq`; false: told that the lease is lost. */
  write(seq: number, sql: string): Promise<boolean>;
  heartbeat(): Promise<boolean>;
  release(): Promise<void>;
  /** The server ends all its connections. */
  lose?(): Promise<void>;
}

/** The stream in its database, and what others do to it. */
export interface Stream {
  readonly runners: readonly Runner[];
  row(): Promise<Row>;
  /** in the order in which they took effect */
  effects(): Promise<readonly number[]>;
  /** entries of the history, oldest first */
  history(): Promise<readonly Entry[]>;
  expire(): Promise<void>;
  /** a body that writes this effect */
  body(n: number): string;
  /** a body that waits until `go` is called, and then writes this effect; `reached` resolves when it waits, or `isOver` */
  slowBody(n: number): Promise<{
    readonly sql: string;
    reached(isOver: () => boolean): Promise<void>;
    go(): Promise<void>;
  }>;
  /** by a person: code of the refusal, or undefined */
  unlock?(runId: string): Promise<string | undefined>;
  /** by a person: a plain UPDATE that makes the token grow */
  bump?(): Promise<void>;
}

/** What the database says of the lease. */
export interface Row {
  readonly token: number;
  readonly runId: string | null;
  readonly isExpired: boolean;
}

/** One entry of the history, and the token that it was written under. */
export interface Entry {
  readonly n: number;
  readonly token: number;
  readonly status: string;
}

interface Held {
  readonly runId: string;
  token: number;
  isLost: boolean;
}

interface Model {
  token: number;
  runId: string | null;
  isExpired: boolean;
  next: number;
  readonly writes: Entry[];
  readonly held: (Held | undefined)[];
}

/** Before anybody has had the lease. */
export function emptyModel(runners: number): Model {
  const held = Array.from({ length: runners }, () => undefined);
  return { token: 0, runId: null, isExpired: false, next: 1, writes: [], held };
}

type Command = fc.AsyncCommand<Model, Stream>;

/** Sequences of what may happen to a stream; what `isWhole` does not ask for needs no driver. */
export function leaseCommands(
  runners: number,
  isWhole: boolean,
): fc.Arbitrary<Iterable<fc.AsyncCommand<Model, Stream>>> {
  const who = fc.nat({ max: runners - 1 });
  return fc.commands(
    [
      who.map(take),
      who.map(write),
      who.map(write),
      who.map(heartbeat),
      who.map(release),
      fc.constant(expire),
      fc.tuple(who, who).map(([writer, taker]) => takeOverDuringWrite(writer, taker)),
      fc.tuple(who, who).map(([writer, taker]) => race(writer, taker)),
      ...(isWhole ? [who.map(lose), who.map(unlock), fc.constant(bump)] : []),
    ],
    { maxCommands: 30, size: "max" },
  );
}

/** The runner whose token and run are those of the row: the only one that may write. */
function isValid(model: Model, who: number): boolean {
  const held = model.held[who];
  return held !== undefined && held.runId === model.runId && held.token === model.token;
}

function isFree(model: Model): boolean {
  return model.runId === null || model.isExpired;
}

function command(
  name: string,
  check: (model: Model) => boolean,
  run: (model: Model, stream: Stream) => Promise<void>,
): Command {
  return {
    check,
    async run(model, stream) {
      const before = model.token;
      await run(model, stream);
      expect(model.token, "the token only grows").toBeGreaterThanOrEqual(before);
      await agree(model, stream);
    },
    toString: () => name,
  };
}

/** What the database says, against what the model says. */
async function agree(model: Model, stream: Stream): Promise<void> {
  expect(await stream.row()).toEqual({ token: model.token, runId: model.runId, isExpired: model.isExpired });
  expect(await stream.effects()).toEqual(model.writes.map(({ n }) => n));
  expect(await stream.history()).toEqual(model.writes);
  const valid = model.held.filter((_, who) => isValid(model, who));
  expect(valid.length).toBeLessThanOrEqual(1);
}

function taken(model: Model, who: number, runId: string): void {
  model.token += 1;
  model.runId = runId;
  model.isExpired = false;
  model.held[who] = { runId, token: model.token, isLost: false };
}

/** What a write makes of the model: a holder that has lost its connection takes a new token first. */
function written(model: Model, who: number, n: number): void {
  const held = model.held[who];
  if (held?.isLost === true) {
    model.token += 1;
    model.isExpired = false;
    held.token = model.token;
    held.isLost = false;
  }
  model.writes.push({ n, token: model.token, status: "done" });
}

function take(who: number): Command {
  return command(
    `take(${who})`,
    (model) => model.held[who] === undefined,
    async (model, stream) => {
      const runId = newRunId("t");
      const token = await stream.runners[who]?.take(runId);
      expect(token).toBe(isFree(model) ? model.token + 1 : undefined);
      if (token !== undefined) taken(model, who, runId);
    },
  );
}

function write(who: number): Command {
  return command(
    `write(${who})`,
    (model) => model.held[who] !== undefined,
    async (model, stream) => {
      const n = model.next++;
      const mayWrite = isValid(model, who);
      expect(await stream.runners[who]?.write(n, stream.body(n))).toBe(mayWrite);
      if (mayWrite) written(model, who, n);
    },
  );
}

function heartbeat(who: number): Command {
  return command(
    `heartbeat(${who})`,
    (model) => model.held[who] !== undefined,
    async (model, stream) => {
      const isOurs = isValid(model, who);
      expect(await stream.runners[who]?.heartbeat()).toBe(isOurs);
      if (isOurs) model.isExpired = false;
    },
  );
}

function release(who: number): Command {
  return command(
    `release(${who})`,
    (model) => model.held[who] !== undefined,
    async (model, stream) => {
      const isOurs = isValid(model, who);
      await stream.runners[who]?.release();
      model.held[who] = undefined;
      if (!isOurs) return;
      model.runId = null;
      model.isExpired = false;
    },
  );
}

const expire: Command = command(
  "expire",
  (model) => model.runId !== null,
  async (model, stream) => {
    await stream.expire();
    model.isExpired = true;
  },
);

/** A transaction that still works is itself the lock: its lease cannot be taken over, although it has expired. */
function takeOverDuringWrite(writer: number, taker: number): Command {
  return command(
    `takeOverDuringWrite(${writer}, ${taker})`,
    (model) =>
      isValid(model, writer) && model.held[writer]?.isLost === false && model.held[taker] === undefined,
    async (model, stream) => {
      const n = model.next++;
      const { sql, reached, go } = await stream.slowBody(n);
      let isOver = false;
      const writing = stream.runners[writer]?.write(n, sql).finally(() => (isOver = true));
      await reached(() => isOver);
      await stream.expire();
      let token: number | undefined;
      try {
        token = await stream.runners[taker]?.take(newRunId("t"));
      } finally {
        await go();
      }
      expect({ token, isWritten: await writing }).toEqual({ token: undefined, isWritten: true });
      model.isExpired = true;
      written(model, writer, n);
    },
  );
}

/** An expired holder's write and a take-over at the same time: either is first, and the write takes effect only if it is. */
function race(writer: number, taker: number): Command {
  return command(
    `race(${writer}, ${taker})`,
    (model) =>
      isValid(model, writer) && model.held[writer]?.isLost === false && model.held[taker] === undefined,
    async (model, stream) => {
      await stream.expire();
      const n = model.next++;
      const runId = newRunId("t");
      const untilTaken = async (): Promise<number> => {
        for (;;) {
          const token = await stream.runners[taker]?.take(runId);
          if (token !== undefined) return token;
        }
      };
      const [isWritten, token] = await Promise.all([
        stream.runners[writer]?.write(n, stream.body(n)),
        untilTaken(),
      ]);
      if (isWritten === true) written(model, writer, n);
      expect(token).toBe(model.token + 1);
      taken(model, taker, runId);
    },
  );
}

function lose(who: number): Command {
  return command(
    `lose(${who})`,
    (model) => model.held[who]?.isLost === false,
    async (model, stream) => {
      await stream.runners[who]?.lose?.();
      const held = model.held[who];
      if (held !== undefined) held.isLost = true;
    },
  );
}

function unlock(who: number): Command {
  return command(
    `unlock(${who})`,
    (model) => model.held[who] !== undefined,
    async (model, stream) => {
      const runId = model.held[who]?.runId ?? "";
      const expected = model.runId === runId ? (model.isExpired ? undefined : "LEASE_ALIVE") : "UNKNOWN_RUN";
      expect(await stream.unlock?.(runId)).toBe(expected);
      if (expected !== undefined) return;
      model.token += 1;
      model.runId = null;
      model.isExpired = false;
    },
  );
}

const bump: Command = command(
  "bump",
  () => true,
  async (model, stream) => {
    await stream.bump?.();
    model.token += 1;
  },
);
