import { setTimeout as sleep } from "node:timers/promises";

import type { Download, DownloadIntervention, DownloadFate } from "./bucket-proxy.ts";
import type { Control, Hold } from "./control.ts";
import type { Intervention, Exchange, Fate } from "./database-proxy.ts";
import type { Fault } from "./fault.ts";
import { messageKind, messageOf, objectPoint, type Point } from "./point.ts";
import type { RunnerProcess } from "./runner-process.ts";

/** Looks at all that the runners of a round say, and strikes where the fault that is armed wants it. */
export interface Injector {
  message(runner: RunnerProcess, exchange: Exchange): Promise<Intervention | undefined>;
  download(runner: RunnerProcess, download: Download): Promise<DownloadIntervention | undefined>;
}

/** The server that a round's database is on, as far as faults need it. */
export interface CrashServer {
  /** Stops it with `immediate`, keeps it away for a while, and resolves when it takes connections again. */
  crash(downMs: number): Promise<void>;
  /** Resolves when it takes connections. */
  ready(): Promise<void>;
}

/** Whom a fault struck. */
export interface Struck {
  readonly runner: RunnerProcess;
  /** `performance.now()` */
  readonly at: number;
}

/** What a injector works with. */
export interface InjectorParts {
  readonly control: Control;
  readonly server: CrashServer;
  /** versions of all migrations of the round */
  readonly migrations: number;
  /** milliseconds that a server works on after its runner was struck, where the fault lingers */
  readonly lingerMs: number;
  runners(): Iterable<RunnerProcess>;
  note(text: string): void;
}

/** Points that a run passes by time, so that it has to be kept busy until then. */
const timed: ReadonlySet<Point> = new Set<Point>(["heartbeat", "cancel-poll"]);
/** milliseconds for a backend to come to a closed gate */
const gatePatienceMs = 5_000;

interface Frozen {
  readonly woken: PromiseWithResolvers<void>;
  /** of the message that is on its way meanwhile */
  readonly answered: Promise<void> | undefined;
}

/** One fault at a time, on whichever runner comes to its point first. */
export class FaultInjector implements Injector {
  readonly #parts: InjectorParts;
  readonly #frozen = new Map<RunnerProcess, Frozen>();
  readonly #lingering = new Set<Promise<void>>();
  #armed: Fault | undefined;
  #passings = 0;
  #struck = Promise.withResolvers<Struck>();
  #gate: Hold | undefined;
  /** from a strike until it is decided what comes next: meanwhile nothing passes, or the next point might be missed */
  #pause: PromiseWithResolvers<void> | undefined;

  constructor(parts: InjectorParts) {
    this.#parts = parts;
  }

  /** Waits for `fault`; the result settles once its deed is done. */
  async arm(fault: Fault): Promise<{ readonly struck: Promise<Struck> }> {
    this.#struck = Promise.withResolvers<Struck>();
    this.#passings = 0;
    if (timed.has(fault.point)) {
      const { control, migrations } = this.#parts;
      this.#gate = await control.hold(
        `SELECT pg_catalog.pg_advisory_lock(1, n) FROM generate_series(1, ${migrations}) n`,
      );
    }
    this.#armed = fault;
    this.rest();
    return { struck: this.#struck.promise };
  }

  /** Nothing more is to happen for now. */
  rest(): void {
    this.#pause?.resolve();
    this.#pause = undefined;
  }

  /** A runner came to the point; its fault may still be going on. */
  isSprung(): boolean {
    return this.#armed === undefined;
  }

  /** The point was not reached. */
  async disarm(): Promise<void> {
    this.#armed = undefined;
    await this.#gate?.open();
    this.#gate = undefined;
  }

  async message(runner: RunnerProcess, exchange: Exchange): Promise<Intervention | undefined> {
    await this.#pause?.promise;
    const fault = this.#armed;
    if (isPast(runner)) return undefined;
    if (fault === undefined || messageKind(exchange.text) !== messageOf(fault.point)) return undefined;
    if (fault.point === "take-over" && !(await this.#isHolderDead())) return undefined;
    if (!this.#isItsTurn(fault)) return undefined;
    if (fault.moment === "in") this.#gate ??= await this.#closeGate(fault, exchange.text);
    return { moment: fault.moment, strike: () => this.#strikeMessage(fault, runner, exchange) };
  }

  async download(runner: RunnerProcess, { path }: Download): Promise<DownloadIntervention | undefined> {
    await this.#pause?.promise;
    const fault = this.#armed;
    if (fault === undefined || isPast(runner) || objectPoint(path) !== fault.point) return undefined;
    if (!this.#isItsTurn(fault)) return undefined;
    const moment = fault.moment === "before" ? "before" : "in";
    return { moment, strike: () => this.#strikeDownload(fault, runner) };
  }

  /** Lets through what a frozen runner had on its way, and wakes it once that has arrived. */
  async thaw(runner: RunnerProcess): Promise<void> {
    const frozen = this.#frozen.get(runner);
    this.#frozen.delete(runner);
    runner.health = "woken";
    frozen?.woken.resolve();
    await Promise.race([frozen?.answered, sleep(gatePatienceMs, undefined, { ref: false })]);
    runner.signal("SIGCONT");
  }

  /** Resolves when no server works on for a runner that was struck. */
  async quiet(): Promise<void> {
    await Promise.all(this.#lingering);
  }

  #isItsTurn(fault: Fault): boolean {
    // Between two looks at the database another runner may have been first.
    if (this.#armed !== fault) return false;
    this.#passings += 1;
    if (this.#passings < fault.nth) return false;
    this.#armed = undefined;
    this.#pause = Promise.withResolvers<void>();
    return true;
  }

  async #isHolderDead(): Promise<boolean> {
    const rows = await this.#parts.control
      .query(
        "SELECT 1 FROM lockkeeper.streams WHERE holder IS NOT NULL AND expires_at < pg_catalog.clock_timestamp()",
      )
      .catch(() => []);
    return rows.length > 0;
  }

  async #closeGate(fault: Fault, text: string): Promise<Hold | undefined> {
    const sql = gateOf(text, fault);
    return sql === undefined ? undefined : this.#parts.control.hold(sql);
  }

  async #strikeMessage(fault: Fault, runner: RunnerProcess, exchange: Exchange): Promise<Fate> {
    const gate = this.#gate;
    this.#gate = undefined;
    if (fault.moment === "in" && gate !== undefined) await this.#untilAtGate(exchange);
    const fate = await this.#hit(fault, runner, exchange);
    this.#struck.resolve({ runner, at: performance.now() });
    await this.#openLater(gate, fault);
    return fate();
  }

  /** The answer says what becomes of the message, and when: that of a frozen runner waits until it wakes. */
  async #hit(
    fault: Fault,
    runner: RunnerProcess,
    { line, answered }: Exchange,
  ): Promise<() => Promise<Fate>> {
    const drop = (): Promise<Fate> => Promise.resolve("drop");
    const { control, server } = this.#parts;
    switch (fault.kind) {
      case "power-off":
        runner.database.silence();
        return this.#kill(runner).then(() => drop);
      case "kill":
        return this.#kill(runner).then(() => drop);
      case "freeze": {
        const isOnItsWay = fault.moment === "before" || fault.moment === "half";
        const woken = this.#freeze(runner, isOnItsWay ? answered : undefined);
        return async () => {
          if (isOnItsWay) await woken;
          return "pass";
        };
      }
      case "cut":
        runner.health = "struck";
        line.cut();
        return drop;
      case "cut-all":
        runner.health = "struck";
        runner.database.cut();
        return drop;
      case "silence":
        runner.health = "struck";
        line.silence();
        return drop;
      case "silence-all":
        runner.health = "struck";
        runner.database.silence();
        return drop;
      case "terminate":
        runner.health = "struck";
        await control.query(`SELECT pg_catalog.pg_terminate_backend(${line.backendPid() ?? 0})`);
        if (fault.moment !== "in") return drop;
        return async () => {
          await answered;
          return "pass";
        };
      case "kill-backend":
        this.#strikeAll();
        process.kill(line.backendPid() ?? Number.NaN, "SIGKILL");
        await answered;
        await server.ready();
        return drop;
      case "immediate-stop":
        this.#strikeAll();
        await server.crash(fault.downMs);
        return drop;
      default:
        throw new TypeError(`${fault.kind} is no fault of a database`);
    }
  }

  async #strikeDownload(fault: Fault, runner: RunnerProcess): Promise<DownloadFate> {
    const fate = await this.#hitDownload(fault, runner);
    this.#struck.resolve({ runner, at: performance.now() });
    return fate();
  }

  async #hitDownload(fault: Fault, runner: RunnerProcess): Promise<() => Promise<DownloadFate>> {
    const be = (fate: DownloadFate) => () => Promise.resolve(fate);
    switch (fault.kind) {
      case "kill":
        await this.#kill(runner);
        return be("reset");
      case "freeze": {
        const woken = this.#freeze(runner, undefined);
        return () => woken.then(() => "pass");
      }
      case "outage":
        runner.health = "struck";
        runner.bucket?.fail();
        return be("error");
      // One lost answer is the source's own to cure: the runner is as well as before.
      case "reset":
        return be("reset");
      case "truncate":
        return be("end");
      case "error":
        return be("error");
      case "silence":
        return be("silence");
      default:
        throw new TypeError(`${fault.kind} is no fault of a bucket`);
    }
  }

  async #kill(runner: RunnerProcess): Promise<void> {
    runner.health = "dead";
    runner.signal("SIGKILL");
    await runner.ended;
  }

  #freeze(runner: RunnerProcess, answered: Promise<void> | undefined): Promise<void> {
    const woken = Promise.withResolvers<void>();
    this.#frozen.set(runner, { woken, answered });
    runner.health = "frozen";
    runner.signal("SIGSTOP");
    return woken.promise;
  }

  /** What takes the server away hits every runner that is under way. */
  #strikeAll(): void {
    for (const runner of this.#parts.runners()) if (runner.health === "well") runner.health = "struck";
  }

  async #openLater(gate: Hold | undefined, fault: Fault): Promise<void> {
    if (gate === undefined) return;
    if (!fault.lingers) return gate.open();
    const lingering = this.#untilSecondAtGate()
      .then(() => gate.open())
      .finally(() => this.#lingering.delete(lingering));
    this.#lingering.add(lingering);
  }

  /** Or until the time is over, because there must be no second: it would be at work on what the first still works on. */
  async #untilSecondAtGate(): Promise<void> {
    const giveUpAt = performance.now() + this.#parts.lingerMs;
    while (performance.now() < giveUpAt && (await this.#atGates()) < 2) await sleep(20);
  }

  async #atGates(): Promise<number> {
    const rows = await this.#parts.control.query(
      "SELECT 1 FROM pg_catalog.pg_stat_activity WHERE datname = pg_catalog.current_database() AND wait_event_type = 'Lock'",
    );
    return rows.length;
  }

  async #untilAtGate({ answered }: Exchange): Promise<void> {
    const end = new AbortController();
    void answered.then(() => end.abort());
    const giveUpAt = performance.now() + gatePatienceMs;
    while (!end.signal.aborted && performance.now() < giveUpAt) {
      if ((await this.#atGates()) > 0) return;
      await sleep(5);
    }
    this.#parts.note(end.signal.aborted ? "the statement passed the gate" : "no backend came to the gate");
  }
}

/** SQL that stops a message in the middle of its work: the lock that one of its statements will wait for. */
function gateOf(text: string, fault: Fault): string | undefined {
  const own = text.replace(/^\/\*lockkeeper:[^*]*\*\//, "");
  const numbers = [...own.matchAll(/crash\.(?:note\(|keyed\(a, |r_)(\d+)/g)].map(([, n]) => Number(n));
  if (numbers.length > 0) {
    const n = numbers[fault.pick % numbers.length];
    return `SELECT pg_catalog.pg_advisory_lock(${fault.point === "commit" ? 2 : 1}, ${n})`;
  }
  const named = /crash\.(items|parted|gone|i)_(\d+)/.exec(own);
  if (named === null) return undefined;
  const table = named[1] === "parted" ? `parted_${named[2]}` : `items_${named[2]}`;
  // Whoever vacuums waits for nobody who merely writes.
  const mode = /^\s*VACUUM/i.test(own) ? "SHARE UPDATE EXCLUSIVE" : "ROW EXCLUSIVE";
  return `BEGIN; LOCK TABLE crash.${table} IN ${mode} MODE`;
}

/** What it still has on its way was sent before it was struck; after it woke nothing more is done to it. */
function isPast({ health }: RunnerProcess): boolean {
  return health === "dead" || health === "frozen" || health === "woken";
}
