import { setTimeout as sleep } from "node:timers/promises";

import { RunnerError } from "../error.ts";
import type { Emit } from "../executor/event.ts";
import { appliedEntries } from "../history/applied.ts";
import { automaticTriggers } from "../history/run.ts";
import { compareVersions } from "../migration/version.ts";
import type { Plan, Step } from "../plan/plan.ts";
import type { Dependency } from "../release/registry.ts";
import type { RunRequest } from "./request.ts";
import type { ServiceDatabase, Target } from "./target.ts";

/** milliseconds between two looks at the other services, the least and the most */
const pollMs = { least: 1_000, most: 3_000 };
/** milliseconds between two notices that a run waits for the same service */
const noticeMs = 15_000;

/**
 * Judges a plan that breaks something for whoever uses the database as it is: that has to be allowed, each time by
 * whoever asks, or once and for all by the target's configuration. What starts by itself has nobody who could ask.
 *
 * @throws RunnerError `BREAKING_REFUSED`
 */
export function assertBreakingAllowed(
  { steps }: Plan,
  { trigger, allow = [] }: Pick<RunRequest, "trigger" | "allow">,
  { name, allowsBreaking }: Pick<Target, "name" | "allowsBreaking">,
): void {
  const breaking = steps.filter(({ registered }) => registered?.breaking === true);
  const [first, ...others] = breaking;
  if (first === undefined || allowsBreaking === true) return;
  const isAutomatic = automaticTriggers.has(trigger);
  if (!isAutomatic && allow.includes("breaking")) return;
  const { body, migration, registered } = first;
  const more = others.length === 0 ? "" : ` (and ${others.length} more of the plan)`;
  const what = registered?.description === undefined ? "" : `: ${registered.description}`;
  throw new RunnerError(
    "BREAKING_REFUSED",
    `"${body.path}"${more} is marked as breaking, which this run on "${name}" may not apply${what}`,
    {
      hint: isAutomatic
        ? "let a person or pipeline apply it, with up --allow-breaking; what starts by itself may only where the target says allowBreaking: true"
        : 'say that it may: up --allow-breaking, or "allow": ["breaking"] in the request',
      fields: { migration: body.path, version: migration.version, breaking: breaking.length },
    },
  );
}

/** How long a run has patience with other services, and who hears of it. */
export interface DependencyOptions {
  /** milliseconds; 0 looks once */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  readonly emit: Emit;
}

/**
 * Asks the databases of other services whether they are where a plan's migrations need them, and waits until they
 * are, as long as `waitMs` says. Reads only; connections are open for the time of this call.
 *
 * @throws RunnerError `DEPENDENCY` - one of them is not; `CONFIG` - nobody said which database is a service's
 * @throws RunnerError `CANCELED`; `DATABASE_…` - one cannot be asked
 */
export async function awaitDependencies(
  plan: Plan,
  request: Pick<RunRequest, "id" | "isAccepted">,
  target: Target,
  { waitMs, signal, emit }: DependencyOptions,
): Promise<void> {
  const needs = needsOf(plan);
  if (needs.length === 0) return;
  await using opened = new AsyncDisposableStack();
  const asked: Asked[] = [];
  for (const need of needs) asked.push({ need, database: opened.use(await openService(target, need)) });
  const notices = new Notices(emit);
  for (const endsAt = performance.now() + waitMs; ;) {
    const missing = (await Promise.all(asked.map((each) => look(each, signal)))).filter(
      (found) => found !== undefined,
    );
    const [first] = missing;
    if (first === undefined) return;
    const leftMs = endsAt - performance.now();
    if (leftMs <= 0 || first.failure?.retryable === false) throw first.failure ?? tooLow(first, plan, waitMs);
    for (const each of missing) notices.tell(each);
    const pause = pollMs.least + Math.random() * (pollMs.most - pollMs.least);
    await sleep(Math.min(pause, leftMs), undefined, { signal });
    await assertNotCanceled(request, target, signal);
  }
}

/** What a plan needs of one service: the highest version of all that its steps name. */
interface Need extends Dependency {
  /** step that asks for it, the first where several do */
  readonly step: Step;
}

interface Asked {
  readonly need: Need;
  readonly database: ServiceDatabase;
}

/** A service that is not there yet. */
interface Missing extends Asked {
  /** that its database is at; null before the first migration, and where it cannot be asked */
  readonly version: string | null;
  /** why it cannot be asked */
  readonly failure?: RunnerError;
}

function needsOf({ steps }: Plan): readonly Need[] {
  const highest = new Map<string, Need>();
  for (const step of steps) {
    for (const dependency of step.registered?.dependencies ?? []) {
      const known = highest.get(dependency.service);
      if (known === undefined || compareVersions(known.minVersion, dependency.minVersion) < 0)
        highest.set(dependency.service, { ...dependency, step });
    }
  }
  return [...highest.values()];
}

async function openService({ name, openService: open }: Target, need: Need): Promise<ServiceDatabase> {
  if (open !== undefined) return open(need.service);
  const { body, migration } = need.step;
  throw new RunnerError(
    "CONFIG",
    `"${body.path}" depends on the service "${need.service}", and nothing says which database is its own`,
    {
      hint: `name its target in the configuration file: services: { ${need.service}: <target> } of "${name}"`,
      fields: { migration: body.path, version: migration.version, service: need.service },
    },
  );
}

async function look(asked: Asked, signal: AbortSignal): Promise<Missing | undefined> {
  const { need, database } = asked;
  const { driver, stream, target } = database;
  try {
    const { position } = await driver.state(stream, signal);
    const { version } = position;
    if (isAt(version, need)) return undefined;
    if (version === null) return { ...asked, version };
    // A migration that came late stands last without being the highest.
    const applied = appliedEntries(await driver.history(stream, {}, signal));
    return applied.some((entry) => isAt(entry.version, need)) ? undefined : { ...asked, version };
  } catch (cause) {
    if (!(cause instanceof RunnerError) || signal.aborted) throw cause;
    const failure = new RunnerError(
      cause.code,
      `the database of the service "${need.service}" (target "${target}") cannot be asked: ${cause.message}`,
      {
        ...(cause.hint === undefined ? {} : { hint: cause.hint }),
        fields: { ...cause.fields, service: need.service },
        cause,
      },
    );
    return { ...asked, version: null, failure };
  }
}

function isAt(version: string | null, { minVersion }: Dependency): boolean {
  return version !== null && compareVersions(version, minVersion) >= 0;
}

/** Who waits outside the lease sees a cancel of another process only in the run's row. */
async function assertNotCanceled(
  { id, isAccepted }: Pick<RunRequest, "id" | "isAccepted">,
  { driver }: Target,
  signal: AbortSignal,
): Promise<void> {
  if (!isAccepted || (await driver.run(id, signal))?.cancelRequested !== true) return;
  throw new RunnerError("CANCELED", "the run was asked to stop while it waited for another service", {
    hint: "run again to go on where it stopped",
  });
}

/** Says at the beginning, at every change and now and then whom a run waits for. */
class Notices {
  readonly #emit: Emit;
  readonly #told = new Map<string, { readonly version: string | null; readonly at: number }>();

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  tell({ need, database, version, failure }: Missing): void {
    const now = performance.now();
    const told = this.#told.get(need.service);
    if (told !== undefined && told.version === version && now - told.at < noticeMs) return;
    this.#told.set(need.service, { version, at: now });
    this.#emit({
      kind: "dependency.waiting",
      path: need.step.body.path,
      service: need.service,
      target: database.target,
      minVersion: need.minVersion,
      version,
      problem: failure?.message ?? null,
    });
  }
}

function tooLow({ need, database, version }: Missing, { steps }: Plan, waitMs: number): RunnerError {
  const { step, service, minVersion } = need;
  const before = steps[steps.indexOf(step) - 1];
  const part =
    before === undefined ? "" : `, or go only as far as does not need it: goto ${before.migration.version}`;
  const first = `bring "${service}" up first`;
  return new RunnerError(
    "DEPENDENCY",
    `"${step.body.path}" needs the service "${service}" at version ${minVersion}, and its database (target "${database.target}") is at ${version ?? "0"}${waitMs === 0 ? "" : `, after a wait of ${Math.round(waitMs / 1000)} s`}`,
    {
      hint: `${first}, or wait ${waitMs === 0 ? "for it with --dependencies wait" : "longer (--wait)"}${part}`,
      fields: {
        migration: step.body.path,
        version: step.migration.version,
        service,
        target: database.target,
        expected: minVersion,
        actual: version,
      },
    },
  );
}
