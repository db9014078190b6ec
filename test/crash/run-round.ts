import { setTimeout as sleep } from "node:timers/promises";

import { check, type Expectation } from "./checker.ts";
import { stepsOf, type Violation } from "./evidence.ts";
import { describeFault, type Fault } from "./fault.ts";
import type { Stage, Round } from "./round.ts";
import type { Job } from "./runner.ts";
import { type Ended, type RunnerProcess, startRunner } from "./runner-process.ts";
import type { Place, Site } from "./site.ts";
import { FaultInjector, type Struck } from "./fault-injector.ts";
import { filesOf, setupOf } from "./workload.ts";
import type { Control } from "./control.ts";

/** What became of one fault. */
export interface FaultResult {
  readonly fault: Fault;
  /** false: no runner came to its point */
  readonly isStruck: boolean;
  /** milliseconds until another runner had the lease; undefined where the struck runner kept it, or had none */
  readonly takenOverMs: number | undefined;
}

/** What became of a round. */
export interface RoundResult {
  readonly seed: number;
  readonly faults: readonly FaultResult[];
  readonly violations: readonly Violation[];
  /** runners started */
  readonly runners: number;
  /** runners that nothing was done to and that lost their lease all the same: the machine was too slow for it */
  readonly slow: number;
  readonly migrations: number;
  readonly durationMs: number;
  /** what happened, line by line */
  readonly log: readonly string[];
}

/** milliseconds in which a stage must come to its end, whatever happens: far beyond every lease and server limit of a round */
const stuckMs = 90_000;
/** milliseconds after which a runner that a fault hit, and that nobody else waits for, must have ended by itself */
const lastWordsMs = 75_000;
/** milliseconds within which the server ends what a dead runner left: a statement by `client_connection_check_interval`, an open transaction by its time-out */
const serverLimitMs = 5_000;
/** milliseconds that a machine with much else to do may take to start a process and let it look */
const slowMs = 15_000;
/** exit codes of a struck runner that mean "run again": the lease is lost or held, or something is unavailable */
const runAgain: ReadonlySet<number | null> = new Set([0, 30, 31]);

/**
 * Runs a round from an empty database to the verdict.
 *
 * @param afterwards - looks at the database once more, before it is dropped
 */
export async function runRound(
  round: Round,
  site: Site,
  afterwards?: (databaseUrl: string, expected: Expectation) => Promise<void>,
): Promise<RoundResult> {
  await using run = await RoundRun.open(round, site);
  return await run.toVerdict(afterwards);
}

class RoundRun {
  readonly #round: Round;
  readonly #site: Site;
  readonly #place: Place;
  readonly #database: { readonly url: string; readonly control: Control };
  readonly #name: string;
  readonly #injector: FaultInjector;
  /** those under way */
  readonly #runners = new Set<RunnerProcess>();
  /** all of the round: what a silent one left open stays open until the verdict */
  readonly #everyone: RunnerProcess[] = [];
  readonly #log: string[] = [];
  readonly #violations: Violation[] = [];
  readonly #faults: FaultResult[] = [];
  readonly #began = performance.now();
  #started = 0;
  #slow = 0;
  /** runners that nothing was done to and that have succeeded */
  #successes = 0;

  private constructor(
    round: Round,
    site: Site,
    place: Place,
    name: string,
    database: { readonly url: string; readonly control: Control },
  ) {
    this.#round = round;
    this.#site = site;
    this.#place = place;
    this.#name = name;
    this.#database = database;
    this.#injector = new FaultInjector({
      control: database.control,
      server: site.server,
      migrations: round.migrations.length,
      lingerMs: round.lingerMs,
      runners: () => this.#runners,
      note: (text) => this.#note(text),
    });
  }

  static async open(round: Round, site: Site): Promise<RoundRun> {
    const name = `crash_round_${round.seed}_${Math.random().toString(36).slice(2, 8)}`;
    const database = await site.createDatabase(name);
    await database.control.query(setupOf(round.migrations));
    return new RoundRun(round, site, await site.createPlace(round.place), name, database);
  }

  async toVerdict(afterwards?: Parameters<typeof runRound>[2]): Promise<RoundResult> {
    const round = this.#round;
    this.#note(
      `${round.migrations.length} migrations in a ${round.place}, orphans: ${round.orphans}; ${round.stages.map(({ to, runners }) => `to ${to} by ${runners}`).join(", ")}`,
    );
    let digest = "";
    for (const stage of round.stages) {
      digest = await this.#place.publish(filesOf(round.migrations.slice(0, stage.released)));
      await this.#reach(stage);
      if (this.#violations.length > 0) break;
    }
    await this.#injector.quiet();
    const last = round.stages.at(-1);
    const applied = last?.to ?? 0;
    const { control } = this.#database;
    const expected: Expectation = {
      steps: stepsOf(round.stages, round.migrations),
      migrations: round.migrations,
      applied,
      completed: applied === last?.released ? digest : null,
      patienceMs: round.times.leaseMs * 2 + 5_000,
    };
    this.#violations.push(...(await check(control, expected)));
    await afterwards?.(this.#database.url, expected);
    for (const { rule, detail } of this.#violations) this.#note(`VIOLATION ${rule}: ${detail}`);
    return {
      seed: round.seed,
      faults: this.#faults,
      violations: this.#violations,
      runners: this.#started,
      slow: this.#slow,
      migrations: round.migrations.length,
      durationMs: performance.now() - this.#began,
      log: this.#log,
    };
  }

  /** One stage of the way: its faults one after the other, then as many runners as it takes, which is one. */
  async #reach(stage: Stage): Promise<void> {
    const giveUpAt = performance.now() + stuckMs;
    for (const fault of stage.faults) {
      const { struck } = await this.#injector.arm(fault);
      while (this.#count("well") < stage.runners) await this.#start(stage);
      const reached = await Promise.race([struck, this.#allEnded()]);
      // A runner may have ended while its server is still being kept away.
      const hit = reached ?? (this.#injector.isSprung() ? await struck : undefined);
      if (hit === undefined) {
        await this.#injector.disarm();
        this.#faults.push({ fault, isStruck: false, takenOverMs: undefined });
        this.#note(`not reached: ${describeFault(fault)}`);
        continue;
      }
      this.#note(`runner ${hit.runner.number}: ${describeFault(fault)}`);
      await this.#afterwards(fault, hit, stage);
    }
    this.#injector.rest();
    await this.#injector.quiet();
    if (this.#count("well") === 0) await this.#start(stage);
    await this.#untilEnded((runner) => runner.health === "well", giveUpAt);
    await this.#wakeAll();
    await this.#untilEnded(
      ({ health }) => health === "struck" || health === "woken",
      performance.now() + lastWordsMs,
    );
    await this.#untilLeaseRunsOut();
    // The way that anybody would go: run it once more, and see that there is nothing to do.
    const last = await this.#start(stage);
    await this.#untilEnded((runner) => runner === last, giveUpAt + lastWordsMs);
    const said = (await last.ended).said;
    if (said !== undefined && said.done > 0 && this.#slow === 0)
      this.#violate(
        "a run that nobody disturbed finishes the work",
        `the next one had ${said.done} steps to do`,
      );
  }

  /** A dead or frozen holder's lease is taken over by another, which is started if nobody waits for it. */
  async #afterwards(fault: Fault, { runner, at }: Struck, stage: Stage): Promise<void> {
    const isGone = runner.health === "dead" || runner.health === "frozen" || fault.kind === "silence-all";
    if (!isGone) {
      this.#faults.push({ fault, isStruck: true, takenOverMs: undefined });
      return;
    }
    const held = await this.#leaseOf(runner);
    if (held === undefined) {
      this.#faults.push({ fault, isStruck: true, takenOverMs: undefined });
      return;
    }
    if (this.#round.isAged)
      await this.#database.control.query(
        `UPDATE lockkeeper.streams SET expires_at = pg_catalog.clock_timestamp() - interval '1 s' WHERE token = ${held}`,
      );
    // Who takes over may be struck itself, at any point from now on.
    void this.#watchTakeOver(fault, runner, held, at);
    if (this.#count("well") === 0) await this.#start(stage);
  }

  async #watchTakeOver(fault: Fault, runner: RunnerProcess, held: number, at: number): Promise<void> {
    const index = this.#faults.push({ fault, isStruck: true, takenOverMs: undefined }) - 1;
    const successes = this.#successes;
    for (;;) {
      const isNeeded = this.#successes === successes;
      const token = await this.#token();
      if (token === undefined) return;
      if (token > held) break;
      // A run that succeeds without the lease had nothing to do: the dead one had done it all.
      if (!isNeeded || performance.now() - at > stuckMs) return;
      await sleep(20);
    }
    const takenOverMs = performance.now() - at;
    this.#faults[index] = { fault, isStruck: true, takenOverMs };
    this.#note(`taken over from runner ${runner.number} after ${Math.round(takenOverMs)} ms`);
    const { times, lingerMs } = this.#round;
    if (takenOverMs > times.leaseMs + lingerMs + serverLimitMs + slowMs)
      this.#violate(
        "a dead holder's lease is taken over after one lease",
        `${describeFault(fault)}: ${Math.round(takenOverMs)} ms`,
      );
    if (runner.health === "frozen" && fault.wakes === "take-over") await this.#wake(runner);
  }

  async #wake(runner: RunnerProcess): Promise<void> {
    this.#note(`runner ${runner.number} wakes`);
    await this.#injector.thaw(runner);
  }

  async #wakeAll(): Promise<void> {
    const frozen = [...this.#runners].filter(({ health }) => health === "frozen");
    await Promise.all(frozen.map((runner) => this.#wake(runner)));
  }

  async #start(stage: Stage): Promise<RunnerProcess> {
    const round = this.#round;
    this.#started += 1;
    const isDown = stage.to < stage.released;
    const job: Job = {
      databaseUrl: this.#database.url,
      sourceUrl: this.#place.url,
      source: this.#place.options,
      publicKey: this.#site.publicKey,
      stream: "orders",
      goal: isDown ? { kind: "version", version: String(stage.to), allow: "down" } : { kind: "latest" },
      action: isDown ? "rollback" : "apply",
      times: round.times,
      orphans: round.orphans,
      waitMs: stuckMs,
    };
    const runner = await startRunner(
      this.#started,
      job,
      {
        databasePort: this.#site.postgresPort,
        bucketEndpoint: this.#place.endpoint,
        cacheFolder: this.#site.cacheFolder,
        rewrite: round.weaken,
      },
      this.#injector,
    );
    this.#everyone.push(runner);
    this.#runners.add(runner);
    void runner.ended.then((ended) => this.#judge(runner, ended));
    return runner;
  }

  /** Its exit says nothing of the database; it says whether somebody would have been asked. */
  #judge(runner: RunnerProcess, { code, signal, said }: Ended): void {
    this.#runners.delete(runner);
    const error = said?.error;
    this.#note(
      `runner ${runner.number} (${runner.health}) ended: ${signal ?? `exit ${code}`}${error === null || error === undefined ? "" : `, ${error.code}: ${error.message}`}`,
    );
    if (runner.health === "dead") return;
    const isSlow = runner.health === "well" && error?.code === "LEASE_LOST";
    if (isSlow) this.#slow += 1;
    if (runner.health === "well" && code === 0) this.#successes += 1;
    if (runner.health === "well" ? code === 0 || isSlow : runAgain.has(code)) return;
    this.#violate(
      runner.health === "well" ? "a runner that nothing was done to succeeds" : "running again is enough",
      `runner ${runner.number}: ${signal ?? `exit ${code}`} ${error?.code ?? ""} ${error?.message ?? runner.output().slice(-2_000)}`,
    );
    this.#log.push(...runner.output().split("\n").slice(-40));
  }

  async #untilEnded(which: (runner: RunnerProcess) => boolean, giveUpAt: number): Promise<void> {
    for (;;) {
      const left = [...this.#runners].filter(which);
      if (left.length === 0) return;
      if (performance.now() > giveUpAt) {
        for (const runner of left) {
          this.#violate("nothing is stuck", `runner ${runner.number} (${runner.health}) is still under way`);
          this.#log.push(...runner.output().split("\n").slice(-40));
          runner.health = "dead";
          runner.signal("SIGKILL");
          await runner.ended;
        }
        return;
      }
      await Promise.race([...left.map(({ ended }) => ended), sleep(50)]);
    }
  }

  /** One that was struck as it took the lease holds it until then, and only who comes afterwards can see that it is dead. */
  async #untilLeaseRunsOut(): Promise<void> {
    const alive = "SELECT 1 FROM lockkeeper.streams WHERE expires_at > pg_catalog.clock_timestamp()";
    while ((await this.#database.control.query(alive).catch(() => [])).length > 0) await sleep(50);
  }

  async #allEnded(): Promise<undefined> {
    while ([...this.#runners].some(({ health }) => health === "well" || health === "struck")) await sleep(20);
  }

  /** The token that a runner holds the lease by. */
  async #leaseOf(runner: RunnerProcess): Promise<number | undefined> {
    const rows = await this.#database.control
      .query<{ token: string }>(`SELECT token FROM lockkeeper.streams WHERE holder LIKE '%/${runner.pid}'`)
      .catch(() => []);
    return rows[0] === undefined ? undefined : Number(rows[0].token);
  }

  async #token(): Promise<number | undefined> {
    const rows = await this.#database.control
      .query<{ token: string }>("SELECT token FROM lockkeeper.streams")
      .catch(() => []);
    return rows[0] === undefined ? undefined : Number(rows[0].token);
  }

  #count(health: RunnerProcess["health"]): number {
    return [...this.#runners].filter((runner) => runner.health === health).length;
  }

  #violate(rule: string, detail: string): void {
    this.#violations.push({ rule, detail });
  }

  #note(text: string): void {
    this.#log.push(`${Math.round(performance.now() - this.#began)} ms ${text}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#injector.quiet();
    for (const runner of this.#everyone) {
      if (!runner.hasEnded()) runner.health = "dead";
      await runner.dispose();
    }
    await this.#database.control[Symbol.asyncDispose]();
    await this.#place[Symbol.asyncDispose]();
    const made = this.#round.migrations.filter(({ kind }) => kind === "database");
    await this.#site.dropDatabases([this.#name, ...made.map(({ n }) => `crash_${this.#round.seed}_${n}`)]);
  }
}
